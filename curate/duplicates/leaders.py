"""Leaders: the pairs that stand for all others with the same hash and nearly the same look.

A look is what is compared beside the hash: an 8 x 8 thumbnail, by the root mean squared difference
of its levels, and a second hash, by its bits; both are metrics. Within a set of equal hashes

1. rows of one look are a star, its leader one that is known already, else the lowest uid;
2. a fresh look joins the first leader of an earlier flood that is within a quarter of the limits;
3. the other fresh looks, walked by uid: one with at least FLOOD others within a quarter of the
   limits leads these (its star is wide), and they are out of the walk;
4. everyone else leads itself.

So two of a wide star differ by at most half the limits, and whatever is near none of a flood is
compared look by look. A wide leader stands for members a quarter away: near another, it has to be
a quarter of the limits nearer, half of them where both are wide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.duplicates.hamming import Hashes, Indices, batches, ranges

FLOOD = 100  # others that make a leader of one whose members are not identical
BYTES = 192  # of a thumbnail: 8 x 8 RGB
COMPARED = 1 << 13  # pairs of thumbnails that are compared one by one at a time
BLOCK = 1 << 22  # cells of a matrix of such pairs
MATRIX = 1 << 12  # from so many pairs of two hashes on they are a matrix
PAIRS = 1 << 20  # pairs of rows at a time
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Limits:
    """Up to where two looks are near, less 0, 1 or 2 radii of a wide star; None: not compared."""

    squares: tuple[float, float, float] | None  # summed over a thumbnail's bytes
    bits: tuple[int, int, int] | None

    @classmethod
    def of(cls, max_rms: float | None, check_radius: int | None) -> Limits:
        """max_rms: of thumbnails, 0 to 255; check_radius: bits of the second hash."""
        squares = bits = None
        if max_rms is not None:
            whole, one, two = ((max_rms * (1 - n / 4)) ** 2 * BYTES for n in range(3))
            squares = (whole, one, two)
        if check_radius is not None:
            whole, one, two = (check_radius - n * (check_radius // 4) for n in range(3))
            bits = (whole, one, two)
        return cls(squares, bits)

    @property
    def radius(self) -> Limits:
        """Of a wide star: a quarter, whatever the stars."""
        squares = None if self.squares is None else (self.squares[0] / 16,) * 3
        return Limits(squares, None if self.bits is None else (self.bits[0] // 4,) * 3)


@dataclass(frozen=True)
class Rows:
    """Rows sorted by hash, then uid.

    thumbnails: rows x 192; checks: the second hash; both zero where they are not compared. fresh:
    seen by no earlier search; wide: leads a star whose members are not identical.
    """

    uids: pa.ChunkedArray
    hashes: Hashes
    thumbnails: Bytes
    checks: Hashes
    fresh: Bools
    wide: Bools

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """Of the columns uid, key, look, thumbnail (null or 192 bytes), fresh and wide."""
        thumbnails = np.zeros((table.num_rows, BYTES), dtype=np.uint8)
        if table["thumbnail"].null_count == 0:
            begin = 0
            for chunk in table["thumbnail"].cast(pa.binary(BYTES)).chunks:
                content = np.frombuffer(chunk.buffers()[1], np.uint8)
                content = content[chunk.offset * BYTES :][: len(chunk) * BYTES]
                thumbnails[begin : begin + len(chunk)] = content.reshape(-1, BYTES)
                begin += len(chunk)
        return cls(
            table["uid"],
            table["key"].to_numpy(),
            thumbnails,
            table["look"].fill_null(0).to_numpy(),
            table["fresh"].to_numpy(),
            table["wide"].to_numpy(),
        )

    def take(self, at: Indices, wide: Bools) -> Rows:
        """Some of the rows; wide: of all of them, anew."""
        return Rows(
            self.uids.take(pa.array(at)),
            self.hashes[at],
            self.thumbnails[at],
            self.checks[at],
            self.fresh[at],
            wide[at],
        )

    def near(self, left: Indices, right: Indices, limits: Limits) -> Bools:
        """Whether the looks of rows left[k] and right[k] are near."""
        radii = self.wide[left].astype(np.int64) + self.wide[right]
        found = np.ones(len(left), dtype=bool)
        if limits.bits is not None:
            differing = np.bitwise_count(self.checks[left] ^ self.checks[right])
            found &= differing <= np.array(limits.bits)[radii]
        if limits.squares is not None:
            most = np.array(limits.squares)[radii]
            for begin in range(0, len(left), COMPARED):
                here = slice(begin, begin + COMPARED)
                levels = self.thumbnails[left[here]].astype(np.int32)
                levels -= self.thumbnails[right[here]]
                found[here] &= np.einsum("ij,ij->i", levels, levels) <= most[here]
        return found

    def all_near(self, left: Indices, right: Indices, limits: Limits) -> Bools:
        """Whether the looks of rows left[i] and right[j] are near: a matrix, exact."""
        radii = self.wide[left][:, None].astype(np.int8) + self.wide[right][None, :]
        found = np.ones(radii.shape, dtype=bool)
        if limits.bits is not None:
            differing = np.bitwise_count(self.checks[left][:, None] ^ self.checks[right][None, :])
            found &= differing <= np.array(limits.bits)[radii]
        if limits.squares is not None:
            # sums of 192 products of bytes are below 2^24: float32 holds them exactly
            ours, theirs = (self.thumbnails[at].astype(np.float32) for at in (left, right))
            own, other = (np.einsum("ij,ij->i", x, x).astype(np.int32) for x in (ours, theirs))
            squares = own[:, None] + other[None, :] - 2 * (ours @ theirs.T).astype(np.int32)
            found &= squares <= np.array(limits.squares)[radii]
        return found


def stars(rows: Rows, limits: Limits) -> tuple[Indices, Bools]:
    """The position of each row's leader, its own where it leads itself, and which rows' stars are
    wide. A wide star costs one comparison with each look of its hash; n looks of one hash that are
    all different cost n * n comparisons in blocks.
    """
    leader, wide = _identical(rows), rows.wide.copy()
    looks = np.flatnonzero(leader == np.arange(len(leader)))
    if limits.squares is None and limits.bits is None:
        return leader, wide
    _, first, sizes = np.unique(rows.hashes[looks], return_index=True, return_counts=True)
    known_wide = np.add.reduceat(wide[looks], first, dtype=np.int64) if len(looks) else sizes
    for k in np.flatnonzero((sizes > FLOOD) | ((known_wide > 0) & (sizes > 1))):
        _join(rows, looks[first[k] : first[k] + sizes[k]], limits.radius, leader, wide)
    return leader[leader], wide


def _identical(rows: Rows) -> Indices:
    """The first row of each row's hash and look, those that are known before those that are fresh.

    Rows are sorted by a number made of the look; who follows another one is compared in full.
    """
    odd = np.random.default_rng(0).integers(0, 2**63, BYTES // 8 + 1, dtype=np.uint64) * 2 + 1
    mixed = rows.thumbnails.view(np.uint64) @ odd[1:] + rows.checks * odd[0]
    order = np.lexsort((rows.fresh, mixed, rows.hashes))  # stable: then by uid
    same = np.zeros(len(order), dtype=bool)
    hashes, mixed = rows.hashes[order], mixed[order]
    same[1:] = (hashes[1:] == hashes[:-1]) & (mixed[1:] == mixed[:-1])
    for some in np.array_split(np.flatnonzero(same), 1 + int(same.sum()) // COMPARED):
        one, other = order[some], order[some - 1]
        same[some] = (rows.thumbnails[one] == rows.thumbnails[other]).all(axis=1)
        same[some] &= rows.checks[one] == rows.checks[other]
    head = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    leader = np.empty_like(order)
    leader[order] = order[head]
    return leader


def _join(rows: Rows, looks: Indices, radius: Limits, leader: Indices, wide: Bools) -> None:
    """Steps 2 and 3 for the looks of one hash: who joins whom, and who is wide from now on."""
    free, here = rows.fresh[looks].copy(), np.ones(len(looks), dtype=bool)

    def lead(k: int, near: Bools) -> None:
        joins = near & free
        joins[k] = False
        leader[looks[joins]] = looks[k]
        wide[looks[k]] |= joins.any()
        free[joins] = here[joins] = free[k] = here[k] = False

    for block in _blocks(np.flatnonzero(wide[looks] & ~free), len(looks)):
        for k, near in zip(block, rows.all_near(looks[block], looks, radius), strict=True):
            lead(k, near)
    for block in _blocks(np.flatnonzero(free), len(looks)):
        some = block[free[block]]
        for k, near in zip(some, rows.all_near(looks[some], looks, radius), strict=True):
            if free[k] and np.count_nonzero(near & here) > FLOOD:  # itself and FLOOD others
                lead(k, near)


def _blocks(rows: Indices, width: int) -> Iterator[Indices]:
    """Some rows at a time, so that a matrix of that width stays small."""
    step = max(1, BLOCK // max(1, width))
    for begin in range(0, len(rows), step):
        yield rows[begin : begin + step]


def near_pairs(
    rows: Rows, left: Hashes, right: Hashes, limits: Limits
) -> Iterator[tuple[Indices, Indices]]:
    """Positions of the near rows of hash left[k] and hash right[k], at least one of the two fresh,
    some at a time; where the two hashes are one, each pair once. Each hash has a row.
    """
    begin, counts = _spans(rows.hashes, left)
    others, widths = _spans(rows.hashes, right)
    cells = counts * widths
    small = np.flatnonzero(cells < MATRIX)
    for low, high in batches(cells[small], PAIRS):
        asked = small[low:high]
        cell = ranges(np.zeros(len(asked), np.int64), cells[asked])
        k = np.repeat(asked, cells[asked])
        one, other = begin[k] + cell // widths[k], others[k] + cell % widths[k]
        ask = (rows.fresh[one] | rows.fresh[other]) & ((left[k] != right[k]) | (one < other))
        one, other = one[ask], other[ask]
        near = rows.near(one, other, limits)
        yield one[near], other[near]
    for pair in np.flatnonzero(cells >= MATRIX):
        ours, theirs = np.arange(counts[pair]) + begin[pair], np.arange(widths[pair]) + others[pair]
        yield from _large(rows, ours, theirs, limits)


def _spans(hashes: Hashes, wanted: Hashes) -> tuple[Indices, Indices]:
    """Where each wanted hash begins among the sorted ones, and how often it occurs."""
    begin, end = (np.searchsorted(hashes, wanted, side=side) for side in ("left", "right"))
    return begin, end - begin


def _large(
    rows: Rows, left: Indices, right: Indices, limits: Limits
) -> Iterator[tuple[Indices, Indices]]:
    """near_pairs of two hashes with many rows, by matrices."""
    same = left[0] == right[0]
    fresh, known = left[rows.fresh[left]], left[~rows.fresh[left]]
    todo = [(fresh, right)] if same else [(fresh, right), (known, right[rows.fresh[right]])]
    for ones, others in todo:
        for some in _blocks(ones, len(others)):
            near = rows.all_near(some, others, limits)
            if same:
                near &= (some[:, None] < others[None, :]) | ~rows.fresh[others][None, :]
            i, j = np.nonzero(near)
            yield some[i], others[j]
