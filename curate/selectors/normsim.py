"""NormSim: how much an image is like a set of references (2405.19547). norm 2: sqrt(sum over the
references r of (f.r)^2), by the sum of r r^T, (d, d); inf: the largest f.r.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from models.kmeans import BLOCK, Matrix
from models.nearest import Nearest

Places = np.ndarray[Any, np.dtype[np.int64]]
# unit rows (n, d), and of each the place of itself among the references or -1 -> float32 (n,)
Similarity = Callable[[Matrix, Places], Matrix]


def normsim(references: Matrix, norm: str) -> Similarity:
    """NormSim of rows against unit references (k, d), a row that is one of them left out of it.

    norm: 2 | inf. Without references all rows have 0.
    """
    if not len(references):
        return lambda rows, _: np.zeros(len(rows), np.float32)
    if norm == "inf":
        nearest = Nearest(references)
        return lambda rows, but: nearest(rows, but)[1]
    moment = second_moment(references)
    return lambda rows, but: _euclidean(rows, but, moment)


def second_moment(references: Matrix) -> Matrix:
    """The sum of r r^T, (d, d)."""
    wide = references.astype(np.float64)
    return np.asarray(wide.T @ wide, np.float32)


def _euclidean(rows: Matrix, but: Places, moment: Matrix) -> Matrix:
    found = np.zeros(len(rows), np.float32)
    block = np.zeros((BLOCK, rows.shape[1]), np.float32)  # always so many rows, as in `nearest`
    for begin in range(0, len(rows), BLOCK):
        some = rows[begin : begin + BLOCK]
        block[: len(some)] = some
        squares = ((block @ moment) * block).sum(axis=1)[: len(some)]
        found[begin : begin + BLOCK] = squares
    itself = (rows**2).sum(axis=1) ** 2 * (but >= 0)
    return np.asarray(np.sqrt(np.maximum(found - itself, 0)))
