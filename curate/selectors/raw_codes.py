"""What TL;DR's released code clusters: the integer codes of an image, place by place, taken for
coordinates. For comparison only: the numbers of codes mean nothing, so it finds how patches are
laid out and not what they show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.selectors.bags import Flags, flat
from models.kmeans import BLOCK, Matrix

CLUSTERS = 1000
MOST_DIMS = 256
EPSILON = 1e-5  # of a variance, so that a place with one code alone is no division by zero
FILES = ("turned", "offset")


@dataclass(frozen=True)
class RawCodes:
    """What whitens codes. turned: (codes of an image, dims); offset: (dims,)."""

    turned: Matrix
    offset: Matrix

    def __call__(self, column: pa.ChunkedArray) -> tuple[Matrix, Flags]:
        """Unit rows (n, dims), and which rows have codes."""
        codes, known = as_floats(column, self.turned.shape[0])
        rows = np.zeros((len(codes), len(self.offset)), np.float32)
        block = np.zeros((BLOCK, codes.shape[1]), np.float32)
        for begin in range(0, len(codes), BLOCK):
            some = codes[begin : begin + BLOCK]
            block[: len(some)] = some
            rows[begin : begin + BLOCK] = (block @ self.turned + self.offset)[: len(some)]
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), known

    def save(self, folder: Path) -> None:
        """Write its arrays."""
        for name in FILES:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)


def fit(column: pa.ChunkedArray) -> RawCodes:
    """PCA with whitening, to as many dimensions as there are, at most MOST_DIMS."""
    import faiss

    codes, known = as_floats(column)
    rows, size = codes[known], codes.shape[1]
    dims = min(MOST_DIMS, size, max(len(rows) - 1, 0))
    if dims == 0:
        return RawCodes(np.zeros((size, 0), np.float32), np.zeros(0, np.float32))
    pca = faiss.PCAMatrix(size, dims, -0.5, False)
    pca.epsilon = EPSILON
    pca.train(rows)
    turned = faiss.vector_to_array(pca.A).reshape(dims, size).T
    return RawCodes(np.ascontiguousarray(turned), faiss.vector_to_array(pca.b))


def as_floats(column: pa.ChunkedArray, size: int | None = None) -> tuple[Matrix, Flags]:
    """Codes as floats (n, size), and which rows have them; size: None takes the first row's.

    Raises ValueError where images have different numbers of codes.
    """
    values, row = flat(column)
    lengths = np.bincount(row, minlength=len(column))
    known: Any = lengths > 0
    size = size if size is not None else int(lengths.max(initial=0))
    if (wrong := lengths[known & (lengths != size)]).size:
        raise ValueError(
            f"released_code: an image has {wrong[0]} codes, another one {size}: use sqrt or tfidf"
        )
    codes = np.zeros((len(column), size), np.float32)
    codes[known] = values.reshape(-1, size) if size else 0
    return codes, known
