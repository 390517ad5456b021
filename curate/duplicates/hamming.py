"""All pairs of 64-bit hashes within a Hamming radius r, no approximation.

1. Cut the 64 bits into r + t blocks. Two hashes within r differ in at most r of them, so they
   agree in at least t.
2. For each choice of t blocks (a view), only hashes that are equal in these blocks are compared: a
   sort and a sweep. A pair is reported by the view of the first t blocks it agrees in, so once.

t grows with the pool: more views, fewer comparisons; t = 0 compares everything, which is quickest
for a small pool. Multi-index hashing (Norouzi, Punjani, Fleet, 1307.2982), with equality of
several blocks instead of probing.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import comb
from typing import Any

import numpy as np

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
View = tuple[int, ...]  # the blocks in which two hashes have to be equal

MOST_VIEWS = 2000
NS_PER_VIEW, NS_PER_SORTED, NS_PER_COMPARED = (
    5e7,
    1000.0,
    4.0,
)  # of one core; they choose t, nothing else
CHUNK = 1 << 16  # comparisons at a time: they stay in the cache


def plan(rows: int, radius: int) -> tuple[list[int], list[View]]:
    """Masks of the radius + t blocks (disjoint, 64 bits together) and all choices of t of them.

    No views for radius 0, where equal hashes are all there is. t: least expected time for random
    hashes.
    """
    if radius == 0:
        return [], []

    def cost(t: int) -> float:
        compared = rows * rows / 2 / 2 ** (64 * t / (radius + t))
        each = NS_PER_VIEW + rows * NS_PER_SORTED + compared * NS_PER_COMPARED
        return comb(radius + t, t) * each

    t = min((t for t in range(9) if comb(radius + t, t) <= MOST_VIEWS), key=cost)
    ends = [64 * b // (radius + t) for b in range(radius + t + 1)]
    masks = [(1 << high) - (1 << low) for low, high in pairwise(ends)]
    return masks, list(combinations(range(radius + t), t))


def mask_of(blocks: list[int], view: View) -> int:
    """The bits in which the hashes of a view have to be equal."""
    return sum(blocks[b] for b in view)


def pairs_in_view(
    hashes: Hashes, radius: int, blocks: list[int], view: View
) -> tuple[Indices, Indices]:
    """Positions (i, j) of the pairs that this view reports. hashes: distinct."""
    left, right = pairs_within(hashes, hashes & np.uint64(mask_of(blocks, view)), radius)
    differing = hashes[left] ^ hashes[right]
    mine = np.ones(len(left), dtype=bool)
    for block in (b for b in range(max(view, default=0)) if b not in view):
        mine &= (differing & np.uint64(blocks[block])) != 0
    return left[mine], right[mine]


def pairs_within(hashes: Hashes, keys: Hashes, radius: int) -> tuple[Indices, Indices]:
    """Positions (i, j) of all pairs with equal keys and hashes at most `radius` bits apart.

    Rows of one key lie together, the keys with most rows first: at shift s only a prefix can still
    have partners, and each shift is one pass over contiguous memory.
    """
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.lexsort((group, -sizes[group]))
    x, group, size = hashes[order], group[order], sizes[group][order]
    found = []
    for shift in range(1, int(size[0]) if len(size) else 0):
        with_partner = int(np.searchsorted(-size, -shift))
        i = _near(x[:with_partner], shift, radius)
        i = i[group[i] == group[i + shift]]
        if len(i):
            found.append((order[i], order[i + shift]))
    empty = np.empty(0, dtype=np.int64)
    first, second = zip(*found, strict=True) if found else ((empty,), (empty,))
    return np.concatenate(first), np.concatenate(second)


def _near(x: Hashes, shift: int, radius: int) -> Indices:
    """Positions i with x[i] and x[i + shift] at most `radius` bits apart."""
    hits = [np.empty(0, dtype=np.int64)]
    for begin in range(0, len(x) - shift, CHUNK):
        end = min(begin + CHUNK, len(x) - shift)
        differing = np.bitwise_count(x[begin:end] ^ x[begin + shift : end + shift])
        hits.append(np.flatnonzero(differing <= radius) + begin)
    return np.concatenate(hits)
