"""Leaders: the pairs that stand for all others with the same hash and nearly the same thumbnail.

Within a set of equal hashes, walked by uid, a row whose thumbnail is near a leader's joins that
leader's star (the first such leader's), else it becomes a leader. So each member is near its
leader, two members of a star are at most twice as far apart, and two leaders with one hash are not
near each other. A row without a thumbnail joins nobody, and nobody joins it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.duplicates.hamming import Hashes, Indices

BYTES = 192  # of a thumbnail: 8 x 8 RGB
CHUNK = 1 << 13  # thumbnails that are compared at a time
PAIRS = 1 << 18  # pairs of rows at a time
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Rows:
    """Rows sorted by hash, then uid. thumbnails: rows x 192; known: which rows have one."""

    uids: pa.ChunkedArray
    hashes: Hashes
    thumbnails: np.ndarray[Any, np.dtype[np.uint8]]
    known: Bools

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """Of the columns uid, key and thumbnail; one of other than 192 bytes counts as none."""
        known = pc.fill_null(pc.equal(pc.binary_length(table["thumbnail"]), BYTES), False)
        found = known.to_numpy()
        thumbnails = np.zeros((len(found), BYTES), dtype=np.uint8)
        packed = b"".join(table["thumbnail"].filter(known).to_pylist())
        thumbnails[found] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, BYTES)
        return cls(table["uid"], table["key"].to_numpy(), thumbnails, found)

    def take(self, at: Indices) -> Rows:
        """Some of the rows."""
        return Rows(
            self.uids.take(pa.array(at)), self.hashes[at], self.thumbnails[at], self.known[at]
        )

    def leaders(self, max_rms: float) -> Indices:
        """The position of each row's leader, its own where it is one.

        Every round makes one leader per hash and takes away what joins it: a flood of copies costs
        one round; n rows of one hash that all look different cost n rounds, n * n / 2 comparisons.
        """
        leader = np.arange(len(self.hashes))
        rest = np.flatnonzero(self.known)
        while len(rest):
            _, first, sizes = np.unique(self.hashes[rest], return_index=True, return_counts=True)
            mine = np.repeat(rest[first], sizes)
            joins = self.alike(rest, mine, max_rms)
            leader[rest[joins]] = mine[joins]
            rest = rest[~joins]
        return leader

    def alike(self, left: Indices, right: Indices, max_rms: float) -> Bools:
        """Whether the thumbnails of rows left[k] and right[k] differ by at most `max_rms`: the root
        of their mean squared difference, 0 to 255.
        """
        found = self.known[left] & self.known[right]
        for begin in range(0, len(left), CHUNK):
            here = slice(begin, begin + CHUNK)
            pixels = self.thumbnails[left[here]].astype(np.int32)
            pixels -= self.thumbnails[right[here]]
            found[here] &= np.einsum("ij,ij->i", pixels, pixels) <= max_rms**2 * BYTES
        return found

    def pairs(self, left: Hashes, right: Hashes) -> Iterator[tuple[Indices, Indices]]:
        """Positions of every row of hash left[k] with every row of hash right[k], some at a time.

        Each hash has a row.
        """
        begin, end = (np.searchsorted(self.hashes, left, side=side) for side in ("left", "right"))
        first = _ranges(begin, end - begin)
        others = np.repeat(right, end - begin)
        begin, end = (np.searchsorted(self.hashes, others, side=side) for side in ("left", "right"))
        counts = end - begin
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // PAIRS)) + 1
        for some in np.split(np.arange(len(first)), cuts):
            yield np.repeat(first[some], counts[some]), _ranges(begin[some], counts[some])


def _ranges(begin: Indices, counts: Indices) -> Indices:
    """begin[0], begin[0] + 1, ... (counts[0] of them), begin[1], ..."""
    before = np.cumsum(counts) - counts
    return np.repeat(begin - before, counts) + np.arange(int(counts.sum()))
