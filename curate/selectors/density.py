"""Density: more of the clusters whose pairs differ, and in each those farthest from the centroid
(density-based pruning, DBP, 2401.04578).

Pick it after deduplication, to thin what the pool has much of in one place.
1. Cluster the pool's pairs that have an embedding.
2. Of each cluster: d_intra, its pairs' mean distance (1 - cosine) from the centroid; d_inter, the
   mean distance of the centroid from its nearest `neighbours` others; C = d_inter * d_intra, and
   P = softmax(C / temperature).
3. Quotas x: min ||x - P * count||^2 with sum x = count, min_samples <= x_c <= |c|, solved exactly,
   in whole pairs by largest remainder.
4. In each cluster take the farthest, ties by uid.

Where `count` is too small for `min_samples` of each, it is the most that fits.

Measured on 100 000 pairs of 128 dimensions in 316 clusters: 5 CPU seconds; a million in 500 is some
70, by extrapolation. The embeddings are read twice, those of `train_rows` written to scratch.
Memory: three float32 copies of these, and DuckDB's sort of (uid, cluster, distance).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curate.selectors.centroids import Clusters, clusters_of
from curate.selectors.embedded import usable
from curate.selectors.pool import Pool, ranked
from models.kmeans import Matrix
from schemas.configs import DensitySelector

Vector = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

MOST_CLUSTERS = 500  # the paper's, of LAION
UNIT = 1e-9  # of distances, which are summed as whole numbers: the same in every order

_SIZES = """
SELECT cluster, count(*) AS n, CAST(sum(CAST(round(distance / {unit}) AS BIGINT)) AS DOUBLE) AS far
FROM {codes} SEMI JOIN usable USING (uid) GROUP BY cluster ORDER BY cluster
"""
_CHOSEN = """
WITH placed AS (
  SELECT uid, cluster, distance,
         row_number() OVER (PARTITION BY cluster ORDER BY distance DESC, uid) AS place
  FROM {codes} SEMI JOIN usable USING (uid))
SELECT uid, cluster, distance FROM placed JOIN quotas USING (cluster) WHERE place <= quota
"""


def select(pool: Pool, config: DensitySelector) -> str:
    """SQL of `count` pairs, the farthest from its centroid first. Raises ValueError where the
    embeddings are not there.
    """
    from curate.query import quote
    from curate.query import select as run

    count = min(pool.count, usable(pool, config))
    clusters = clusters_of(pool, config, MOST_CLUSTERS)
    codes = quote(clusters.codes)
    sizes = run(pool.con, _SIZES.format(codes=codes, unit=UNIT))
    quota = _quotas(sizes, clusters, config, count)
    pool.con.register("quotas", pa.table({"cluster": sizes["cluster"], "quota": quota}))
    return ranked(_CHOSEN.format(codes=codes), "distance DESC, uid", count, cluster="cluster")


def _quotas(sizes: pa.Table, clusters: Clusters, config: DensitySelector, count: int) -> Indices:
    """How many of each cluster that has pairs."""
    n = sizes["n"].to_numpy()
    if not len(n):
        return np.zeros(0, dtype=np.int64)
    centroids = clusters.centroids[sizes["cluster"].to_numpy()]
    complexity = between(centroids, config.neighbours) * sizes["far"].to_numpy() * UNIT / n
    least = np.minimum(_least(n, config.min_samples, count), n)
    share = softmax(complexity / config.temperature) * count
    return whole(project(share, least, n, count), least, n, count)


def between(centroids: Matrix, neighbours: int) -> Vector:
    """Mean distance (1 - cosine) of each centroid from its nearest others; 0 for one alone."""
    near = min(neighbours, len(centroids) - 1)
    if near < 1:
        return np.zeros(len(centroids))
    found = np.empty(len(centroids))
    for at, centroid in enumerate(centroids):
        distance = np.delete(1 - centroids @ centroid, at).astype(np.float64)
        found[at] = np.sort(distance)[:near].mean()
    return found


def softmax(values: Vector) -> Vector:
    """Shares that add up to 1."""
    powers = np.exp(values - values.max())
    shares: Vector = powers / powers.sum()
    return shares


def _least(sizes: Indices, asked: int, count: int) -> int:
    """The largest number up to `asked` of which each cluster, or all it has, fits into `count`."""
    low, high = 0, min(asked, count)
    while low < high:
        middle = (low + high + 1) // 2
        fits = np.minimum(sizes, middle).sum() <= count
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def project(wanted: Vector, least: Indices, most: Indices, count: int) -> Vector:
    """The x nearest to `wanted` with sum x = count and least <= x <= most, for sum(least) <= count
    <= sum(most).

    It is clip(wanted + shift, least, most), whose sum is linear in the shift between those at which
    an x reaches a bound: the two around `count` are found by bisection.
    """

    def at(shift: float) -> Vector:
        found: Vector = np.clip(wanted + shift, least, most)
        return found

    shifts = np.unique(np.concatenate([least - wanted, most - wanted]))
    low, high = 0, len(shifts) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(shifts[middle]).sum() <= count else (low, middle)
    below, above = at(shifts[low]), at(shifts[high])
    reach = (above - below).sum()
    part = (count - below.sum()) / reach if reach > 0 else 0.0
    return below + part * (above - below)


def whole(shares: Vector, least: Indices, most: Indices, count: int) -> Indices:
    """Whole numbers that add up to `count`, by largest remainder, ties by the larger cluster, then
    the lower number. A share that is whole but for rounding counts as just below it.
    """
    found = np.maximum(least, np.floor(shares - 1e-6)).astype(np.int64)
    remainder = np.where(found < most, np.round(shares - found, 6), -1)
    order = np.lexsort((np.arange(len(found)), -most, -remainder))
    found[order[: count - found.sum()]] += 1
    return found
