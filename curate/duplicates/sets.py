"""Sets: which of many small sets have a Jaccard similarity of at least a threshold; exact.

Sets come in groups (those that agree in an LSH band), and only sets of one group are compared. A
group of up to SMALL sets is compared pair by pair. In a larger one, as a template makes
("photo 17 of the ..."):

1. A gram is popular where more than FLOOD sets of the group have it. Two sets that share another
   gram are found by it; no such gram joins more than FLOOD sets.
2. All other pairs share popular grams alone. Sets of one size with the same popular grams are a
   class, and the overlap of two classes is that of all their pairs: one comparison.

So a group costs its own length and what is really similar in it, not its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.duplicates.ngrams import Words, mixed

FLOOD = 100
SMALL = 64
PAIRS = 1 << 20  # pairs that are looked at together
BLOCK = 1 << 24  # overlaps of classes that are looked at together
_SALT = np.uint64(0x9E3779B97F4A7C15)  # no gram may count for nothing
Indices = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Sets:
    """Set k is grams[first[k] : first[k + 1]], sorted; numbers[...] are these counted from 0."""

    first: Indices
    grams: Words
    numbers: Indices

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Sets:
        """Of a column of lists of uint64, each sorted and none empty."""
        lengths = pc.list_value_length(column).to_numpy()
        grams: Words = pc.list_flatten(column).to_numpy().astype(np.uint64, copy=False)
        _, numbers = np.unique(grams, return_inverse=True)
        return cls(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), grams, numbers)

    def take(self, members: Indices) -> Sets:
        """Some of the sets."""
        sizes = self.sizes[members]
        places = ranges(self.first[members], sizes)
        first = np.concatenate([[0], np.cumsum(sizes)])
        return Sets(first, self.grams[places], self.numbers[places])

    @cached_property
    def sizes(self) -> Indices:
        return np.diff(self.first)

    @cached_property
    def owner(self) -> Indices:
        """The set of each gram."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @cached_property
    def span(self) -> int:
        return int(self.numbers.max(initial=0)) + 1

    @cached_property
    def keys(self) -> Indices:
        """Set and gram as one number, sorted."""
        return self.owner * self.span + self.numbers

    def shared(self, left: Indices, right: Indices) -> Indices:
        """How many grams sets left[k] and right[k] have in common."""
        swap = self.sizes[left] > self.sizes[right]
        small, large = np.where(swap, right, left), np.where(swap, left, right)
        counts = self.sizes[small]
        places = ranges(self.first[small], counts)
        wanted = np.repeat(large, counts) * self.span + self.numbers[places]
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: Indices = np.add.reduceat(
            (self.keys[at] == wanted).astype(np.int64), np.cumsum(counts) - counts
        )
        return found

    def jaccard(self, left: Indices, right: Indices) -> Floats:
        """Similarity of sets left[k] and right[k]."""
        shared = self.shared(left, right)
        return similarity(shared, self.sizes[left], self.sizes[right])


def similarity(shared: Indices, left: Indices, right: Indices) -> Floats:
    """Jaccard similarity by what is shared and the two sizes."""
    found: Floats = shared / (left + right - shared)
    return found


@dataclass(frozen=True)
class Classes:
    """of[k]: the class of set k. popular[...]: which of the sets' grams are popular in the group of
    their set. shared[k]: how many of set k's.
    """

    of: Indices
    popular: Bools
    shared: Indices


def classes(sets: Sets, group: Indices) -> Classes:
    """Sets of one group, one size and the same popular grams."""
    grams = group[sets.owner] * sets.span + sets.numbers
    _, back, counts = np.unique(grams, return_inverse=True, return_counts=True)
    popular = counts[back] > FLOOD
    starts = sets.first[:-1]
    shared = np.add.reduceat(popular.astype(np.int64), starts)
    known = np.add.reduceat(np.where(popular, mixed(sets.grams ^ _SALT), np.uint64(0)), starts)
    shape = mixed(group.astype(np.uint64)) + sets.sizes.astype(np.uint64)
    _, of = np.unique(mixed(known + mixed(shape)), return_inverse=True)
    return Classes(of, popular, shared)


def similar(
    sets: Sets, group: Indices, fresh: Bools, threshold: float
) -> tuple[Indices, Indices, Floats]:
    """(left, right, similarity) of the pairs of one group that are similar and of which one is
    fresh, once each. group: ascending; the fresh ones of a group come first.
    """
    _, first, counts = np.unique(group, return_index=True, return_counts=True)
    few = np.repeat(counts <= SMALL, counts)
    pools = [_within(np.flatnonzero(few), group[few], fresh)]
    for begin, size in zip(first[counts > SMALL], counts[counts > SMALL], strict=True):
        pools.append(_large(sets, np.arange(begin, begin + size), fresh, threshold))
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for pool in pools:
        for one, other in pool:
            near = sets.jaccard(one, other)
            kept = near >= threshold
            found.append((one[kept], other[kept], near[kept]))
    left, right, near = (np.concatenate(some) for some in zip(*found, strict=True))
    low, high = np.minimum(left, right), np.maximum(left, right)
    _, once = np.unique(low * len(group) + high, return_index=True)
    return low[once], high[once], near[once]


def _large(
    sets: Sets, members: Indices, fresh: Bools, threshold: float
) -> Iterator[tuple[Indices, Indices]]:
    part = sets.take(members)
    owner = members[part.owner]
    known = classes(part, np.zeros(len(members), np.int64))
    rare = np.flatnonzero(~known.popular)
    order = rare[np.lexsort((owner[rare], ~fresh[owner[rare]], part.numbers[rare]))]
    yield from _within(owner[order], part.numbers[order], fresh)
    yield from _of_classes(part, known, members, fresh, threshold)


def _of_classes(
    part: Sets, known: Classes, members: Indices, fresh: Bools, threshold: float
) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of the classes that are similar by their popular grams alone."""
    split = known.of * 2 + ~fresh[members]  # what is old is not compared with what is old
    kinds, one, kind, counts = np.unique(
        split, return_index=True, return_inverse=True, return_counts=True
    )
    by_kind = members[np.argsort(kind, kind="stable")]
    first, news = np.cumsum(counts) - counts, kinds % 2 == 0
    _, column = np.unique(part.numbers[known.popular], return_inverse=True)
    has = np.zeros((len(kinds), int(column.max(initial=-1)) + 1), dtype=np.float32)
    row = np.full(len(members), -1)
    row[one] = np.arange(len(one))
    row = row[part.owner[known.popular]]
    has[row[row >= 0], column[row >= 0]] = 1
    sizes = part.sizes[one]
    step = max(1, BLOCK // len(kinds))
    for begin in range(0, len(kinds), step):
        overlap = has[begin : begin + step] @ has.T
        union = sizes[begin : begin + step, None] + sizes - overlap
        a, b = np.nonzero(overlap >= threshold * union * (1 - 1e-6))
        a = a + begin
        kept = (a <= b) & (news[a] | news[b])
        yield from _across(by_kind, first, counts, a[kept], b[kept])


def _across(
    rows: Indices, first: Indices, counts: Indices, a: Indices, b: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Every row of class a[k] with every one of class b[k]; within a class each pair once."""
    for some in _chunks(counts[a] * counts[b]):
        own, others = counts[a[some]], counts[b[some]]
        left = np.repeat(ranges(first[a[some]], own), np.repeat(others, own))
        right = ranges(np.repeat(first[b[some]], own), np.repeat(others, own))
        apart = (left < right) | np.repeat(a[some] != b[some], own * others)
        if apart.any():
            yield rows[left[apart]], rows[right[apart]]


def _within(rows: Indices, group: Indices, fresh: Bools) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of rows of equal group, the first one fresh; in a group the fresh ones come first."""
    if not len(rows):
        return
    ends = np.flatnonzero(np.diff(group, append=group[-1] - 1)) + 1
    end = np.repeat(ends, np.diff(ends, prepend=0))
    counts = np.where(fresh[rows], end - np.arange(len(rows)) - 1, 0)
    for some in _chunks(counts):
        left = np.repeat(some, counts[some])
        if len(left):
            yield rows[left], rows[ranges(some + 1, counts[some])]


def _chunks(counts: Indices) -> list[Indices]:
    """Positions in runs of about PAIRS pairs."""
    cuts = np.flatnonzero(np.diff(np.cumsum(counts) // PAIRS)) + 1
    return np.split(np.arange(len(counts)), cuts)


def ranges(begin: Indices, counts: Indices) -> Indices:
    """begin[0], begin[0] + 1, ... (counts[0] of them), begin[1], ..."""
    before = np.cumsum(counts) - counts
    return np.repeat(begin - before, counts) + np.arange(int(counts.sum()))
