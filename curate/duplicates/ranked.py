"""Ranked: who SemDeDup's released code removes from a cluster, and over whom.

Rows go by their distance from the centroid, the farthest first, ties by uid. Row j goes when an
earlier row, removed or not, has a cosine above 1 - eps with it; its edge names the nearest such
row, the first of equals. Their code holds S = X X^T of a cluster and takes the maximum of each
column above the diagonal; here it is made of products of one fixed shape, whose sums do not depend
on where a block begins.
"""

from __future__ import annotations

import numpy as np

from curate.duplicates.inverted import Indices
from curate.duplicates.near import Floats, Rows, distances
from models.kmeans import Matrix

TILE = 256  # rows of one product; always so many


def removed(rows: Rows, eps: float) -> tuple[Indices, Indices, Floats]:
    """(i, j, distance): row i, before row j in the given order, removes the fresh row j.

    An equal embedding is the nearest there is, and removes at any eps.
    """
    first = rows.first_alike()
    alone = np.flatnonzero(first == np.arange(len(rows)))
    copies = np.flatnonzero(rows.fresh & (first != np.arange(len(rows))))
    begin = int((~rows.fresh[alone]).sum())
    before = _nearest_before(rows.unit[alone], begin) if eps > 0 else np.full(len(alone), -1)
    has = np.flatnonzero(before >= 0)
    i, j = alone[before[has]], alone[has]
    distance = distances(rows, i, rows, j)
    near = distance < eps
    return (
        np.concatenate([first[copies], i[near]]),
        np.concatenate([copies, j[near]]),
        np.concatenate([np.zeros(len(copies)), distance[near]]),
    )


def _nearest_before(unit: Matrix, begin: int) -> Indices:
    """For each row from `begin` on: the row before it with the largest product; -1 for none."""
    found = np.full(len(unit), -1, dtype=np.int64)
    for low in range(begin - begin % TILE, len(unit), TILE):
        mine = _tile(unit, low)
        best = np.full(TILE, -np.inf, dtype=np.float32)
        where = np.full(TILE, -1, dtype=np.int64)
        for at in range(0, low + 1, TILE):
            cosine = _tile(unit, at) @ mine.T
            if at == low:
                cosine[np.tri(TILE, dtype=bool)] = -np.inf  # itself and who comes after
            top = cosine.argmax(axis=0)
            value = cosine[top, np.arange(TILE)]
            more = value > best
            best[more], where[more] = value[more], at + top[more]
        found[low : low + TILE] = where[: len(unit) - low]
    found[:begin] = -1
    return found


def _tile(unit: Matrix, at: int) -> Matrix:
    tile = np.zeros((TILE, unit.shape[1]), dtype=np.float32)
    some = unit[at : at + TILE]
    tile[: len(some)] = some
    return tile
