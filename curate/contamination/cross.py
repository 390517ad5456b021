"""All pairs of 64-bit hashes within a Hamming radius r, one of a known set and one that is asked
for.

Two hashes within r differ in at most r of r + 1 blocks of bits, so they agree in one. The known
hashes stand in one list per block and value of that block; a hash is compared with the r + 1 lists
that it belongs to, by FAISS. A small set is compared as a whole. Exact either way.

Measured at r = 8 on random hashes: 10 000 against a million take 0.4 CPU seconds, building 0.9.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from curate.duplicates.hamming import Hashes, Indices

BYTES = 8  # of a hash
SMALL = 100_000  # known hashes that are not worth lists: each costs a call


class Known:
    """The known hashes, which have to be distinct."""

    def __init__(self, hashes: Hashes, radius: int) -> None:
        self.hashes, self.radius = hashes, radius
        blocks = radius + 1 if len(hashes) > SMALL else 0
        ends = [64 * b // blocks for b in range(blocks + 1)] if blocks else []
        self.masks = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(ends)]
        self.masks = self.masks or [np.uint64(0)]
        self.lists = [_lists(hashes, mask) for mask in self.masks]

    def near(self, hashes: Hashes) -> tuple[Indices, Indices]:
        """Positions (i in `hashes`, j in the known ones) of all pairs within the radius, each once,
        in order.
        """
        found = [np.empty((0, 2), np.int64)]
        for mask, lists in zip(self.masks, self.lists, strict=True):
            for value, asked in _groups(hashes & mask):
                if value in lists:
                    known, index = lists[value]
                    i, j = _within(index, hashes[asked], self.radius)
                    found.append(np.stack([asked[i], known[j]], axis=1))
        pairs = np.unique(np.concatenate(found), axis=0)
        return pairs[:, 0], pairs[:, 1]


def _lists(hashes: Hashes, mask: np.uint64) -> dict[int, tuple[Indices, Any]]:
    """By value of the masked bits: who has it, and a FAISS index of their hashes."""
    import faiss

    made = {}
    for value, places in _groups(hashes & mask):
        index = faiss.IndexBinaryFlat(8 * BYTES)
        index.add(_bytes(hashes[places]))
        made[value] = (places, index)
    return made


def _groups(keys: Hashes) -> list[tuple[int, Indices]]:
    """Each value and the positions that have it."""
    order = np.argsort(keys, kind="stable")
    values, first = np.unique(keys[order], return_index=True)
    return list(zip(values.tolist(), np.split(order, first[1:]), strict=False))


def _within(index: Any, hashes: Hashes, radius: int) -> tuple[Indices, Indices]:
    limits, _, known = index.range_search(_bytes(hashes), radius + 1)  # FAISS: less than
    counts = np.diff(limits.astype(np.int64))
    return np.repeat(np.arange(len(hashes)), counts), known.astype(np.int64)


def _bytes(hashes: Hashes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, BYTES)
