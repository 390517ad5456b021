"""What a training draws from: the samples of WebDataset shards, in a seeded order that never ends.

The index (captions and where images lie) is held in memory, about 500 bytes per pair: pools of tens
of millions are for open_clip's own trainer, which streams the same shards.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.shards import decode_or_error
from curate.wds import Folder, Sample
from models.base import Image

log = logging.getLogger(__name__)
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Pair:
    """One sample of the shards."""

    uid: str
    tar: str
    offset: int
    size: int
    texts: tuple[str, ...]
    weights: tuple[float, ...]


class Pool:
    """All samples with an image and a caption. Raises ValueError where there are none."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.pairs = [pair for sample in folder.samples() if (pair := read_pair(sample))]
        if not self.pairs:
            raise ValueError(f"{folder.url}: no sample there has both an image and a caption")

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, row: int) -> Image | None:
        """The decoded image; None, with a line in the log, where its bytes are no image."""
        pair = self.pairs[row]
        image, error = decode_or_error(self.folder.read(pair.tar, pair.offset, pair.size))
        if error:
            log.warning(
                "%s/%s: sample %s is left out: %s", self.folder.url, pair.tar, pair.uid, error
            )
        return image

    def caption(self, row: int, uniform: float) -> str:
        """One of the pair's captions, drawn by weight with a uniform number in [0, 1)."""
        pair = self.pairs[row]
        if len(pair.texts) == 1:
            return pair.texts[0]
        edges = np.cumsum(pair.weights)
        return pair.texts[int(np.searchsorted(edges, uniform * edges[-1], side="right"))]


def read_pair(sample: Sample) -> Pair | None:
    """A sample as a pair: captions from our .json, else from .txt; None where something lacks."""
    text = sample.texts.get("txt", b"").decode("utf-8", "replace").strip()
    record = _record(sample.texts.get("json", b"{}"))
    variants = [
        (c["text"], float(c.get("weight") or 0))
        for c in record.get("captions") or []
        if isinstance(c, dict) and c.get("text")
    ]
    variants = [v for v in variants if v[1] > 0] or ([(text, 1.0)] if text else [])
    if sample.image is None or not variants:
        return None
    uid = str(record.get("uid") or sample.key.rsplit("/", 1)[-1].partition("-")[0])
    texts, weights = zip(*variants, strict=True)
    return Pair(uid, sample.tar, *sample.image, texts, weights)


def _record(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


class Stream:
    """Rows of a pool of `n`: one permutation by (seed, pass) after another, cut into batches.

    Every batch is full, whatever `n` is, so that subsets of any size are compared at equal samples
    seen.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self._pass, self._order = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> list[int]:
        """The rows of a step."""
        begin = step * self.batch_size
        return [self._row(position) for position in range(begin, begin + self.batch_size)]

    def _row(self, position: int) -> int:
        which, place = divmod(position, self.n)
        if which != self._pass:
            self._pass, self._order = (
                which,
                np.random.default_rng([self.seed, which]).permutation(self.n),
            )
        return int(self._order[place])
