"""All pairs of 64-bit hashes within a Hamming radius r, no approximation.

1. Cut the 64 bits into r + t blocks. Two hashes within r differ in at most r of them, so they
   agree in at least t.
2. For each choice of t blocks (a view), only hashes that are equal in these blocks are compared: a
   sort and a sweep; what is fresh with what is known by searching the fresh keys. A pair is
   reported by the view of the first t blocks it agrees in, so once.

t grows with the pool: more views, fewer comparisons; t = 0 compares everything, which is quickest
for a small pool. Multi-index hashing (Norouzi, Punjani, Fleet, 1307.2982), with equality of
several blocks instead of probing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb
from typing import Any, NamedTuple

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
HashPairs = tuple[Hashes, Hashes]
View = tuple[int, ...]  # the blocks in which two hashes have to be equal

MOST_VIEWS = 2000
# of one core; they choose t and how many views make a bucket, nothing else
NS_PER_VIEW, NS_PER_SORTED, NS_PER_COMPARED = 1e6, 150.0, 4.0
CHUNK = 1 << 16  # comparisons at a time: they stay in the cache
PROBED = 1 << 20  # candidates at a time


class Plan(NamedTuple):
    """Masks of the blocks, the views, and about what one view costs, in seconds of one core."""

    blocks: list[int]
    views: list[View]
    view_s: float


def plan(rows: int, radius: int, fresh: int | None = None) -> Plan:
    """The radius + t blocks (disjoint, 64 bits together) and all choices of t of them: the t of
    least expected time for random hashes, of which `fresh` (None: all) are compared with all.

    No views for radius 0, where equal hashes are all there is.
    """
    if radius == 0:
        return Plan([], [], 0.0)
    fresh = rows if fresh is None else fresh
    candidates = fresh * (rows - fresh / 2)

    def cost(t: int) -> float:
        compared = candidates / 2 ** (64 * t / (radius + t))
        return NS_PER_VIEW + rows * NS_PER_SORTED + compared * NS_PER_COMPARED

    possible = (t for t in range(9) if comb(radius + t, t) <= MOST_VIEWS)
    t = min(possible, key=lambda t: comb(radius + t, t) * cost(t))
    ends = [64 * b // (radius + t) for b in range(radius + t + 1)]
    masks = [(1 << high) - (1 << low) for low, high in pairwise(ends)]
    return Plan(masks, list(combinations(range(radius + t), t)), cost(t) / 1e9)


def mask_of(blocks: list[int], view: View) -> int:
    """The bits in which the hashes of a view have to be equal."""
    return sum(blocks[b] for b in view)


def pairs_in_view(
    fresh: Hashes, known: Hashes, radius: int, blocks: list[int], view: View
) -> Iterator[HashPairs]:
    """The pairs that this view reports, some at a time: of two fresh hashes, or of a fresh and a
    known one. All hashes are distinct; the output never holds more than the pairs found.
    """
    mask = np.uint64(mask_of(blocks, view))
    earlier = [np.uint64(blocks[b]) for b in range(max(view, default=0)) if b not in view]
    for found in (_swept(fresh, radius, mask), _probed(fresh, known, radius, mask)):
        for left, right in found:
            differing = left ^ right
            mine = np.ones(len(left), dtype=bool)
            for block in earlier:
                mine &= (differing & block) != 0
            if mine.any():
                yield left[mine], right[mine]


def _swept(hashes: Hashes, radius: int, mask: np.uint64) -> Iterator[HashPairs]:
    """Pairs among hashes that are equal under the mask.

    Rows of one key lie together, the keys with most rows first: at shift s only a prefix can still
    have partners, and each shift is one pass over contiguous memory.
    """
    order, starts, sizes = _by_key(hashes & mask)
    largest = np.argsort(-sizes, kind="stable")
    largest = largest[sizes[largest] > 1]
    starts, sizes = starts[largest], sizes[largest]
    x = hashes[order[ranges(starts, sizes)]]
    group = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(sizes)
    for shift in range(1, int(sizes[0]) if len(sizes) else 0):
        groups = int(np.searchsorted(-sizes, -shift))  # with more than `shift` rows
        i = _near(x[: ends[groups - 1]], shift, radius)
        i = i[group[i] == group[i + shift]]
        if len(i):
            yield x[i], x[i + shift]


def _by_key(keys: Hashes) -> tuple[Indices, Indices, Indices]:
    """The order that sorts the keys, and where in it each key starts and how often it occurs."""
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), np.diff(keys) != 0]))
    return order, starts, np.diff(np.append(starts, len(keys)))


def _near(x: Hashes, shift: int, radius: int) -> Indices:
    """Positions i with x[i] and x[i + shift] at most `radius` bits apart."""
    hits = [np.empty(0, dtype=np.int64)]
    for begin in range(0, len(x) - shift, CHUNK):
        end = min(begin + CHUNK, len(x) - shift)
        differing = np.bitwise_count(x[begin:end] ^ x[begin + shift : end + shift])
        hits.append(np.flatnonzero(differing <= radius) + begin)
    return np.concatenate(hits)


def _probed(fresh: Hashes, known: Hashes, radius: int, mask: np.uint64) -> Iterator[HashPairs]:
    """Pairs of a known hash and a fresh one that are equal under the mask: the known ones are
    looked up among the sorted keys of the fresh ones, so nothing of them is sorted.
    """
    if not len(fresh) or not len(known):
        return
    order, starts, sizes = _by_key(fresh & mask)
    keys, wanted = (fresh & mask)[order[starts]], known & mask
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    some = np.flatnonzero(keys[at] == wanted)
    counts = sizes[at[some]]
    for begin, end in batches(counts, PROBED):
        here = some[begin:end]
        left = np.repeat(known[here], counts[begin:end])
        right = fresh[order[ranges(starts[at[here]], counts[begin:end])]]
        near = np.bitwise_count(left ^ right) <= radius
        if near.any():
            yield left[near], right[near]


def ranges(begin: Indices, counts: Indices) -> Indices:
    """begin[0], begin[0] + 1, ... (counts[0] of them), begin[1], ..."""
    before = np.cumsum(counts) - counts
    return np.repeat(begin - before, counts) + np.arange(int(counts.sum()))


def batches(counts: Indices, most: int) -> Iterator[tuple[int, int]]:
    """Slices of `counts` that sum to about `most` each; a larger count is a slice of its own."""
    total = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + most, side="right")))
        yield begin, end
        begin = end
