"""A small dataset with real image tars: coloured squares, their captions, and subsets of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import tars
from curate.dataset import Dataset
from schemas.configs import ClipTrainer, ExportConfig
from schemas.tables import SAMPLES, SUBSET, URLS, uid_of
from tests.tiny import add_table

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 50, 220),
    "yellow": (230, 220, 40),
    "black": (15, 15, 15),
    "white": (240, 240, 240),
    "purple": (140, 40, 170),
    "orange": (240, 140, 20),
}
SUFFIXES = ("jpg", "png", "webp")
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "patch_size": 16,
        "head_width": 32,
    },
    "text_cfg": {"context_length": 8, "width": 32, "heads": 1, "layers": 1},
}
TRAINER = ClipTrainer(
    model=MODEL, vocabulary=64, samples_seen=640, batch_size=32, warmup=5, lr=5e-3, threads=1
)


@dataclass(frozen=True)
class Square:
    """A picture of one colour with a little noise, and its caption."""

    number: int
    colour: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} square"

    @property
    def url(self) -> str:
        return f"http://example.com/{self.number}"

    @property
    def uid(self) -> str:
        return uid_of(self.url, self.caption)

    @property
    def encoded(self) -> bytes:
        noise = np.random.default_rng(self.number).integers(-12, 13, (40, 40, 3))
        rgb = np.clip(np.array(COLOURS[self.colour]) + noise, 0, 255).astype(np.uint8)
        suffix = SUFFIXES[self.number % len(SUFFIXES)]
        return bytes(cv2.imencode(f".{suffix}", rgb[..., ::-1])[1])


def squares(n: int, start: int = 0) -> list[Square]:
    """The colours in turn."""
    names = list(COLOURS)
    return [Square(i, names[i % len(names)]) for i in range(start, start + n)]


def pool(root: Any, made: Sequence[Square], parts: int = 2) -> Dataset:
    """A published dataset with urls, samples and image tars, placed by a hash of the uid."""
    data = Dataset(str(root))
    placed = {
        p: sorted((s for s in made if _place(s, parts) == p), key=lambda s: s.uid)
        for p in range(parts)
    }
    urls = {p: pa.Table.from_pylist([_url(s) for s in own], URLS) for p, own in placed.items()}
    add_table(data, "urls", urls, ())
    samples = {p: pa.Table.from_pylist(_tar(data, p, own), SAMPLES) for p, own in placed.items()}
    add_table(data, "samples", samples, ("urls",))
    return data


def add_subset(
    data: Dataset,
    name: str,
    chosen: Sequence[Square],
    weights: Mapping[str, float] | None = None,
    captions: Mapping[str, list[tuple[str, float]]] | None = None,
) -> None:
    """Write and publish `subset_<name>`; weights and captions by uid, where not the usual ones."""
    rows = [
        {
            "uid": s.uid,
            "weight": (weights or {}).get(s.uid, 1.0),
            "captions": [
                {"caption_id": s.uid, "text": text, "weight": weight}
                for text, weight in (captions or {}).get(s.uid, [(s.caption, 1.0)])
            ],
        }
        for s in sorted(chosen, key=lambda s: s.uid)
    ]
    add_table(data, f"subset_{name}", {0: pa.Table.from_pylist(rows, SUBSET)}, ())


def exported(tmp_path: Path, made: Sequence[Square], name: str = "all", **knobs: Any) -> str:
    """Shards of these squares, in a dataset of their own."""
    from curate.export import export

    data = pool(tmp_path / f"root_{name}", made)
    add_subset(data, name, made)
    return export(data, ExportConfig(subset=name, **knobs))


def retrieval_set(path: Path, made: Sequence[Square], captions: Sequence[Any] | None = None) -> str:
    """A parquet with image bytes and captions."""
    texts = list(captions) if captions is not None else [s.caption for s in made]
    pq.write_table(pa.table({"image": [s.encoded for s in made], "caption": texts}), path)
    return str(path)


def _place(square: Square, parts: int) -> int:
    return int(hashlib.sha256(square.uid.encode()).hexdigest(), 16) % parts


def _url(square: Square) -> dict[str, Any]:
    return {"uid": square.uid, "url": square.url, "caption": square.caption}


def _tar(data: Dataset, part: int, own: Sequence[Square]) -> list[dict[str, Any]]:
    rows = []
    with data.new_tar(part) as (name, stream), tars.new(stream) as tar:
        for square in own:
            content = square.encoded
            offset = tars.add(tar, f"{square.uid}.{SUFFIXES[square.number % 3]}", content)
            size = {"width": 40, "height": 40, "original_width": 80, "original_height": 80}
            place = {"shard": name, "offset": offset, "size": len(content)}
            digest = hashlib.sha256(content).hexdigest()
            who = {"uid": square.uid, "key": square.uid, "status": "success", "sha256": digest}
            rows.append({**who, **size, **place})
    return rows
