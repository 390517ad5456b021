"""Spherical k-means that gives the same bits for any split into parts and any number of workers:
one thread to fit, products of one shape to assign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

Matrix = np.ndarray[Any, np.dtype[np.float32]]

BLOCK = 1024  # rows of one product; always so many: no sum depends on where a part ends


def fit_centroids(
    embeddings: Matrix, clusters: int, iterations: int, seed: int, spherical: bool = True
) -> Matrix:
    """Centroids of k-means, (at most clusters, d), unit rows if spherical. embeddings: unit rows
    (n, d).
    """
    import faiss

    rows, dims = embeddings.shape
    clusters = min(clusters, rows)
    if clusters == 0:
        return np.zeros((0, dims), dtype=np.float32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the sums of several threads would depend on their number
    try:
        means = faiss.Kmeans(
            dims,
            clusters,
            niter=iterations,
            seed=seed % 2**31,
            spherical=spherical,
            min_points_per_centroid=1,
            max_points_per_centroid=rows,
        )
        means.train(np.ascontiguousarray(embeddings, dtype=np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(means.centroids, dtype=np.float32)


def nearest(rows: Matrix, centroids: Matrix) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number of the centroid with the largest inner product; the lowest of equals."""
    found = np.zeros(len(rows), dtype=np.int64)
    block = np.zeros((BLOCK, rows.shape[1]), dtype=np.float32)
    for begin in range(0, len(rows), BLOCK):
        some = rows[begin : begin + BLOCK]
        block[: len(some)] = some
        found[begin : begin + len(some)] = (block @ centroids.T).argmax(axis=1)[: len(some)]
    return found


def unit_rows(column: pa.ChunkedArray) -> tuple[Matrix, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows of length 1 of a column of lists (zeros stay zeros), and which rows are there and
    finite.
    """
    known = np.asarray(column.is_valid().to_numpy(), dtype=bool)
    values = np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [[]]
    )
    dims = len(values) // max(1, int(known.sum()))
    rows = np.zeros((len(known), dims), dtype=np.float32)
    rows[known] = values.reshape(-1, dims) if dims else 0
    known = known & np.isfinite(rows).all(axis=1)
    rows[~known] = 0
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), known
