"""K-center: each next pair is the farthest from all that are taken (Gonzalez 1985; Sener and
Savarese, 1708.00489). Its covering radius is at most twice the smallest there is.

Pick it for a small subset that leaves no corner of the pool out; it takes outliers first.
1. Start with the pair of the lowest draw(seed, uid).
2. Take the pair whose largest cosine to those taken is the smallest, ties by uid. Pairs with equal
   embeddings count once; the others of them come last, by uid.
3. A pool of more than `sample_rows` is cut into groups (groups.py), each traversed by itself: the
   bound then holds in each.

n * count products of d numbers per group, as matrix products: the farthest BLOCK pairs are
traversed among themselves while they stay farther than any other, then all are compared with what
was taken. The cosines are float32: of two pairs that are as far within 1e-6 either may be first.

Measured on one group of 100 000 pairs of 128 dimensions, a quarter taken: 29 CPU seconds; a million
is ten such groups, some 300, by extrapolation. Embeddings are read and written to scratch once.
Memory: three float32 copies of a group's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.selectors.groups import Indices, select_by_group
from curate.selectors.pool import Pool
from models.kmeans import BLOCK, Matrix
from schemas.configs import KCenterSelector

Floats = np.ndarray[Any, np.dtype[np.float32]]


def select(pool: Pool, config: KCenterSelector) -> str:
    """SQL of `count` pairs. Raises ValueError where the embeddings are not there."""
    return select_by_group(pool, config, farthest_first)


def farthest_first(rows: Matrix, start: int, count: int) -> Indices:
    """Numbers of `count` of the unit rows in the order of the traversal that begins at `start`."""
    first = _distinct(rows, start)
    distinct = rows if len(first) == len(rows) else rows[first]
    begin = int(np.searchsorted(first, start))
    found = first[_traverse(distinct, begin, min(count, len(first)))]
    copies = np.setdiff1d(np.arange(len(rows)), first)
    return np.concatenate([found, copies])[:count]


def _distinct(rows: Matrix, start: int) -> Indices:
    """The lowest row of each set of equal ones, or `start`, in order."""
    raw = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, first, of = np.unique(raw, return_index=True, return_inverse=True)
    first[of[start]] = start
    return np.sort(first)


def _traverse(rows: Matrix, start: int, count: int) -> Indices:
    taken = [start][:count]
    nearest = 1 - rows @ rows[start]  # distance to the nearest that is taken
    nearest[start] = -np.inf
    while len(taken) < count:
        bound = -np.inf
        if len(rows) - len(taken) > BLOCK:
            bound = np.partition(nearest, -BLOCK - 1)[-BLOCK - 1]
        block = np.flatnonzero(nearest > bound)  # all others are at `bound` or nearer
        if not len(block):  # more than BLOCK are the farthest
            block = np.argmax(nearest, keepdims=True)
        new = block[_within(rows[block], nearest[block], bound, count - len(taken))]
        taken.extend(new)
        for at in range(0, len(rows), BLOCK):
            cosine = rows[at : at + BLOCK] @ rows[new].T
            some = nearest[at : at + BLOCK]
            np.minimum(some, 1 - cosine.max(axis=1), out=some)
        nearest[new] = -np.inf
    return np.array(taken, dtype=np.int64)


def _within(rows: Matrix, nearest: Floats, bound: float, count: int) -> Indices:
    """The traversal of a block while its farthest is farther than `bound`, of one row at least."""
    nearest = nearest.copy()
    taken: list[int] = []
    while len(taken) < count:
        farthest = int(nearest.argmax())
        if taken and nearest[farthest] <= bound:
            break
        taken.append(farthest)
        nearest = np.minimum(nearest, 1 - rows @ rows[farthest])
        nearest[taken] = -np.inf
    return np.array(taken, dtype=np.int64)
