"""A dataset with any stored images: good, broken and missing ones; small models to score them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate import tars
from curate.dataset import Dataset
from schemas.configs import BootstrapScorer
from schemas.tables import SAMPLES, URLS, uid_of
from tests.gallery import shape
from tests.tiny import Placement, add_table, by_url

BROKEN = b"\xff\xd8\xff\xe0 no picture " * 8
SMALL = BootstrapScorer(
    steps=3,
    warmup=1,
    train_batch_size=8,
    vocabulary=32,
    context_length=8,
    image_size=16,
    patch_size=16,
    width=16,
    layers=1,
    text_width=16,
    embed_dim=16,
)
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@dataclass(frozen=True)
class Stored:
    """A pair and the bytes that were stored for it; None where the download failed."""

    url: str
    caption: str | None
    image: bytes | None

    @property
    def uid(self) -> str:
        return uid_of(self.url, self.caption)


def discs(count: int, start: int = 0) -> list[Stored]:
    """Pairs whose images and captions all differ."""
    numbers = range(start, start + count)
    return [Stored(f"http://a/{i}.jpg", f"a disc, number {i}", shape(i)) for i in numbers]


def stored(root: Any, pairs: Sequence[Stored], parts: int | Placement = 2) -> Dataset:
    """A published dataset with urls, samples and image tars, each part's rows by uid."""
    where = by_url(parts) if isinstance(parts, int) else parts
    placed: dict[int, list[Stored]] = (
        {p: [] for p in range(parts)} if isinstance(parts, int) else {}
    )
    for pair in sorted(pairs, key=lambda pair: pair.uid):
        placed.setdefault(where(pair.uid), []).append(pair)
    data = Dataset(str(root))
    add_pairs(data, placed)
    return data


def add_pairs(data: Dataset, placed: Mapping[int, Sequence[Stored]]) -> None:
    """Write and publish parts of urls and samples, rows as they come; other parts stay."""
    urls = {
        p: [{"uid": s.uid, "url": s.url, "caption": s.caption} for s in own]
        for p, own in placed.items()
    }
    add_table(data, "urls", {p: pa.Table.from_pylist(rows, URLS) for p, rows in urls.items()}, ())
    samples = {p: pa.Table.from_pylist(_tar(data, p, own), SAMPLES) for p, own in placed.items()}
    add_table(data, "samples", samples, ("urls",))


def tiny_clip(folder: Path) -> Path:
    """An untrained open_clip model as a folder, the way open_clip pushes models to a hub."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = open_clip.CLIP(**TINY_CLIP).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def parts_of(data: Dataset, table: str) -> dict[str, bytes]:
    """The bytes of a table's parts, by file name."""
    return {Path(f).name: data.fs.cat_file(f) for f in data.files(table)}


def _tar(data: Dataset, part: int, own: Sequence[Stored]) -> list[dict[str, Any]]:
    rows = []
    with data.new_tar(part) as (name, stream), tars.new(stream) as tar:
        for pair in own:
            row: dict[str, Any] = {"uid": pair.uid, "key": pair.uid}
            if pair.image is None:
                rows.append(
                    row | {"status": "failed_to_download", "error_message": "HTTP Error 404"}
                )
                continue
            place = {"shard": name, "offset": tars.add(tar, f"{pair.uid}.jpg", pair.image)}
            size = {"size": len(pair.image), "original_width": 128, "original_height": 64}
            digest = hashlib.sha256(pair.image).hexdigest()
            rows.append(row | place | size | {"status": "success", "sha256": digest})
    return rows
