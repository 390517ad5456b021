"""A dataset made by hand: urls, samples and scores written directly, for stages that need no image
bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from schemas.base import Config
from schemas.tables import CAPTIONS, SAMPLES, UID, URLS, caption_id_of, uid_of

Placement = Callable[[str], int]  # uid -> part


class Made(Config):
    """What a hand-made table claims to be made with."""

    name: str


@dataclass(frozen=True)
class Row:
    """A pair. scores: {"clip": {"clip_score": 0.3}}; a list becomes a float16 embedding.

    generated: {"hf": [("a dog", 0.4)]}: captions of captions_hf, each with its clip_score or None.
    """

    url: str
    caption: str | None = "a caption"
    status: str = "success"
    sha256: str | None = None  # None: of the URL, so that no two pairs share it
    phash: int | None = None
    dhash: int | None = None
    pixel_sha256: str | None = None
    thumbnail: bytes | None = bytes(192)  # black
    width: int = 100
    height: int = 100
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generated: Mapping[str, Sequence[tuple[str, float | None]]] = field(default_factory=dict)
    keep: bool | None = None  # of decisions_quality; None: no row

    @property
    def uid(self) -> str:
        return uid_of(self.url, self.caption)


def by_url(parts: int, salt: int = 0) -> Placement:
    """The usual placement: by a hash, so that every part gets some."""
    return lambda uid: int(hashlib.sha256(f"{salt}{uid}".encode()).hexdigest(), 16) % parts


def tiny_dataset(root: Any, rows: Sequence[Row], parts: int | Placement = 2) -> Dataset:
    """A published dataset with urls and samples, and scores_*, captions_*, decisions_quality as
    the rows ask for.
    """
    data = Dataset(str(root))
    placed = _place(rows, parts)
    add_table(data, "urls", {p: urls_of(r) for p, r in placed.items()}, ())
    add_table(data, "samples", {p: samples_of(r) for p, r in placed.items()}, ("urls",))
    for name in sorted({n for row in rows for n in row.scores}):
        shapes = _shapes(rows, name)
        tables = {p: _scores(r, name, shapes) for p, r in placed.items()}
        add_table(data, f"scores_{name}", tables, ("urls", "samples"))
    for name in sorted({n for row in rows for n in row.generated}):
        add_table(
            data,
            f"captions_{name}",
            {p: _captions(r, name) for p, r in placed.items()},
            ("samples",),
        )
        scored = {p: _caption_scores(r, name) for p, r in placed.items()}
        add_table(data, f"scores_clip@{name}", scored, ("samples",))
    if any(row.keep is not None for row in rows):
        decisions = {p: _decisions(r) for p, r in placed.items()}
        add_table(data, "decisions_quality", decisions, ("samples",))
    return data


def add_table(data: Dataset, name: str, tables: Mapping[int, pa.Table], of: Sequence[str]) -> None:
    """Write and publish a table, part by part."""
    claim = data.claim(name, Made(name=name), of=of, revisable=True)
    for part, table in tables.items():
        data.write(claim, part, table, again=True)
    data.publish(claim)


def whole(data: Dataset, table: str) -> list[dict[str, Any]]:
    """All rows of a table, sorted by uid."""
    rows = [row for part in data.parts(table) for row in data.read(table, part).to_pylist()]
    return sorted(rows, key=lambda row: (row["uid"], row.get("other_uid", "")))


def _place(rows: Sequence[Row], parts: int | Placement) -> dict[int, list[Row]]:
    where = by_url(parts) if isinstance(parts, int) else parts
    placed: dict[int, list[Row]] = {p: [] for p in range(parts)} if isinstance(parts, int) else {}
    for row in sorted(rows, key=lambda row: row.uid):
        placed.setdefault(where(row.uid), []).append(row)
    return placed


def urls_of(rows: Sequence[Row]) -> pa.Table:
    values = [{"uid": r.uid, "url": r.url, "caption": r.caption} for r in rows]
    return pa.Table.from_pylist(values, URLS)


def samples_of(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist([_sample(r) for r in rows], SAMPLES)


def _sample(row: Row) -> dict[str, Any]:
    if row.status != "success":
        return {
            "uid": row.uid,
            "key": row.uid,
            "status": row.status,
            "error_message": "made to fail",
        }
    return {
        "uid": row.uid,
        "key": row.uid,
        "status": row.status,
        "original_width": row.width,
        "original_height": row.height,
        "sha256": row.sha256 or hashlib.sha256(row.url.encode()).hexdigest(),
        "phash": row.phash,
        "dhash": row.dhash,
        "pixel_sha256": row.pixel_sha256,
        "thumbnail": row.thumbnail,
    }


def _shapes(rows: Sequence[Row], name: str) -> dict[str, int | None]:
    """The columns of a scorer: the length of an embedding, None for a number."""
    shapes: dict[str, int | None] = {}
    for row in rows:
        for column, value in row.scores.get(name, {}).items():
            size = len(value) if isinstance(value, list) else None
            shapes[column] = size or shapes.get(column)
    return dict(sorted(shapes.items()))


def _scores(rows: Sequence[Row], name: str, shapes: Mapping[str, int | None]) -> pa.Table:
    rows = [r for r in rows if r.status == "success"]
    columns: dict[str, Any] = {
        "uid": pa.array([r.uid for r in rows], pa.string()),
        "caption_id": pa.array([r.uid for r in rows], pa.string()),
    }
    for column, size in shapes.items():
        values = [r.scores.get(name, {}).get(column) for r in rows]
        if size is None:
            columns[column] = pa.array(values, pa.float32())
        else:
            halves = [None if v is None else np.array(v, np.float16) for v in values]
            columns[column] = pa.array(halves, pa.list_(pa.float16(), size))
    return pa.table(columns)


def _generated(rows: Sequence[Row], name: str) -> list[tuple[str, str, str, float | None]]:
    return [
        (row.uid, caption_id_of(row.uid, name, "", "", 0, at), text, score)
        for row in rows
        for at, (text, score) in enumerate(row.generated.get(name, ()))
    ]


def _captions(rows: Sequence[Row], name: str) -> pa.Table:
    values = [
        {
            "uid": uid,
            "caption_id": caption_id,
            "caption": text,
            "origin": "generated",
            "generator": name,
        }
        for uid, caption_id, text, _ in _generated(rows, name)
    ]
    return pa.Table.from_pylist(values, CAPTIONS)


def _caption_scores(rows: Sequence[Row], name: str) -> pa.Table:
    values = _generated(rows, name)
    return pa.table(
        {
            "uid": pa.array([v[0] for v in values], pa.string()),
            "caption_id": pa.array([v[1] for v in values], pa.string()),
            "clip_score": pa.array([v[3] for v in values], pa.float32()),
        }
    )


def _decisions(rows: Sequence[Row]) -> pa.Table:
    decided = [r for r in rows if r.keep is not None]
    return pa.table(
        {
            "uid": pa.array([r.uid for r in decided], UID.type),
            "keep": pa.array([bool(r.keep) for r in decided], pa.bool_()),
            "reason": pa.array([None if r.keep else "low_clip" for r in decided], pa.string()),
        }
    )
