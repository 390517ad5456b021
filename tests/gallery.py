"""A small dataset with pictures: real image tars, real rules, hostile captions."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from curate.filter import filter_pairs
from schemas.configs import Rule
from schemas.tables import CAPTIONS, METRICS, SAMPLES, URLS, caption_id_of, draw, schema_of, uid_of
from tests.tiny import add_table, by_url

HOSTILE = (
    "<script>alert(1)</script>",
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style></figcaption></main><svg onload=\"document.title='owned'\">",
    "nul\x00 escape\x1b[2J\x1b]0;owned\x07 bell \x9b31m rtl\u202etxt.exe line\nbreak",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; ' \" `x` | y",
    "javascript:alert(1) https://evil.example/<b>",
)
RULES = (
    Rule(name="low_clip", value="scores_clip__clip_score", drop_below=0.28),
    Rule(name="wide", value="samples__original_width", drop_above=900, fault="image"),
    Rule(name="file_name", drop_if="urls__caption ~ '^IMG_[0-9]+'"),
)


@dataclass(frozen=True)
class Item:
    """A pair; `image` is a stored JPEG or PNG, None where the download failed with `error`."""

    url: str
    caption: str | None
    image: bytes | None
    clip_score: float | None = None
    error: str | None = None
    width: int = 400
    more: Mapping[str, float | None] = field(default_factory=dict)  # other columns of scores_clip

    @property
    def uid(self) -> str:
        return uid_of(self.url, self.caption)


def shape(number: int, side: int = 64) -> bytes:
    """A JPEG of a coloured disc, another one for every number."""
    colour = [int(255 * draw(channel, str(number))) for channel in range(3)]
    pixels = np.full((side, side, 3), 245, np.uint8)
    cv2.circle(pixels, (side // 2, side // 2), side // 4 + number % (side // 5), colour, -1)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


def items(count: int = 40) -> list[Item]:
    """Pairs with scores from 0.1 to 0.5; every ninth cannot be had, every eighth has no score."""
    made = []
    for i in range(count):
        failed, unscored = i % 9 == 8, i % 8 == 7
        caption = HOSTILE[i // 4] if i % 4 == 1 and i // 4 < len(HOSTILE) else f"a disc, number {i}"
        made.append(
            Item(
                url=f"https://pool.example/{i}.jpg",
                caption=f"IMG_{i:04d}.jpg" if i % 10 == 5 else caption,
                image=None if failed else shape(i),
                clip_score=None if failed or unscored else 0.1 + 0.4 * draw(1, str(i)),
                error="HTTP Error 404: <i>Not Found</i>" if failed else None,
                width=1000 if i % 13 == 6 else 400 + i,
            )
        )
    return made


def gallery(
    root: Any, pairs: Sequence[Item], rules: Sequence[Rule] = RULES, parts: int = 2
) -> Dataset:
    """Published: urls, samples with tars, scores_clip with embeddings, and the rules' decisions."""
    data = Dataset(str(root))
    where = by_url(parts)
    placed: dict[int, list[Item]] = {p: [] for p in range(parts)}
    for item in sorted(pairs, key=lambda item: item.uid):
        placed[where(item.uid)].append(item)
    urls = {
        p: pa.Table.from_pylist(
            [{"uid": i.uid, "url": i.url, "caption": i.caption} for i in some], URLS
        )
        for p, some in placed.items()
    }
    add_table(data, "urls", urls, ())
    add_table(
        data, "samples", {p: _samples(data, p, some) for p, some in placed.items()}, ("urls",)
    )
    scores = {p: _scores([i for i in some if i.image]) for p, some in placed.items()}
    add_table(data, "scores_clip", scores, ("samples",))
    if rules:
        filter_pairs(data, rules)
    return data


def add_rows(data: Dataset, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of one part that belongs to no other's parts."""
    add_table(data, table, {0: pa.Table.from_pylist(list(rows), schema_of(table))}, ())


def add_dedup(
    data: Dataset, edges: Sequence[tuple[str, str, float]], gone: Mapping[str, str]
) -> None:
    """duplicates_perceptual with these edges, those of distance 0 of stars, and decisions_dedup
    that drops the uids in `gone` for others.
    """
    rows = [
        {"uid": a, "other_uid": b, "distance": d, "member": d == 0, "method": "phash"}
        for a, b, d in edges
    ]
    add_rows(data, "duplicates_perceptual", rows)
    tables = {}
    for part in data.parts("samples"):
        uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
        reasons = ["duplicate_perceptual" if u in gone else None for u in uids]
        columns = {"uid": uids, "keep": [r is None for r in reasons], "reason": reasons}
        columns["duplicate_of"] = [gone.get(u) for u in uids]
        tables[part] = pa.table(columns, schema=schema_of("decisions_dedup"))
    add_table(data, "decisions_dedup", tables, ("samples",))


def add_caption(data: Dataset, uid: str, text: str) -> str:
    """captions_hf with one generated caption; returns its caption_id."""
    caption_id = caption_id_of(uid, "blip", "", "{}", 0, 0)
    row = {
        "uid": uid,
        "caption_id": caption_id,
        "caption": text,
        "origin": "generated",
        "generator": "blip",
        "seed": 0,
    }
    add_table(data, "captions_hf", {0: pa.Table.from_pylist([row], CAPTIONS)}, ())
    return caption_id


def add_metrics(data: Dataset, rows: Sequence[tuple[str, int, int, str, float]]) -> None:
    """metrics with (subset, seed, step, metric, value) per row."""
    names = ("subset", "seed", "step", "metric", "value")
    values = [{"run": f"{r[0]}-{r[1]}", "n": 100, **dict(zip(names, r, strict=True))} for r in rows]
    add_table(data, "metrics", {0: pa.Table.from_pylist(values, METRICS)}, ())


def _samples(data: Dataset, part: int, pairs: Sequence[Item]) -> pa.Table:
    rows = []
    with data.new_tar(part) as (name, stream), tarfile.open(fileobj=stream, mode="w") as tar:
        for item in pairs:
            row: dict[str, Any] = {"uid": item.uid, "key": item.uid, "attempts": 1}
            if item.image is None:
                rows.append(row | {"status": "failed_to_download", "error_message": item.error})
                continue
            member = tarfile.TarInfo(f"{item.uid}.jpg")
            member.size = len(item.image)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(item.image))
            place = {"shard": name, "offset": offset, "size": member.size}
            size = {"width": 64, "height": 64, "original_width": item.width, "original_height": 300}
            rows.append(row | {"status": "success"} | place | size)
    return pa.Table.from_pylist(rows, SAMPLES)


def _scores(pairs: Sequence[Item]) -> pa.Table:
    columns: dict[str, Any] = {
        "uid": pa.array([i.uid for i in pairs], pa.string()),
        "caption_id": pa.array([i.uid for i in pairs], pa.string()),
        "clip_score": pa.array([i.clip_score for i in pairs], pa.float32()),
    }
    for name in sorted({name for i in pairs for name in i.more}):
        columns[name] = pa.array([i.more.get(name) for i in pairs], pa.float32())
    embeddings = [np.full(16, k, np.float16) for k in range(len(pairs))]
    columns["image_emb"] = pa.array(embeddings, pa.list_(pa.float16(), 16))
    columns["error"] = pa.array(
        [None if i.clip_score is not None else "no text" for i in pairs], pa.string()
    )
    return pa.table(columns)
