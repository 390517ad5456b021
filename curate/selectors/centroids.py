"""Centroids of some of the pool's pairs, and every pair's nearest one and its distance from it.

1. Spherical k-means of the `train_rows` of them with the lowest draw(seed, uid), sorted by uid, on
   one thread: an artifact.
2. Part by part, every pair that has an embedding: the centroid with the largest cosine, and 1 -
   cosine -> codes_<name>.

Fitting holds three float32 copies of `train_rows` embeddings, a worker one part.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.selectors.embedded import Clustered, count, embeddings, originals, units
from curate.selectors.pool import Pool
from models.kmeans import Matrix, fit_centroids, nearest, unit_rows
from schemas.tables import CODES

_TRAIN = """
CREATE OR REPLACE TEMP TABLE train AS
SELECT uid, part, row_number() OVER (ORDER BY uid) - 1 AS place
FROM (SELECT uid, part FROM {pairs} ORDER BY {draw}, uid LIMIT {rows})
"""


@dataclass(frozen=True)
class Clusters:
    """codes: the table with uid, cluster and distance, a view of the connection; centroids:
    (clusters, d).
    """

    codes: str
    centroids: Matrix


def clusters_of(
    pool: Pool, config: Clustered, most: int, pairs: str = "usable", step: str = ""
) -> Clusters:
    """Clusters of the pairs of the table `pairs` (uid, part), some of `usable`; in
    codes_<name><step> every pair of the dataset has its nearest. `clusters` None is round(sqrt(N)),
    at most `most`.
    """
    from curate.query import view_sql

    data, codes = pool.data, f"codes_{config.name}{step}"
    key = digest([config.claimed(), pool.state])
    folder = data.artifact(codes, key, partial(_fit, pool, config, most, pairs))
    path, table = f"{folder}/centroids.npy", f"scores_{config.embeddings}"
    claim = data.claim(codes, config, of=(table,), artifact=key, revisable=True)

    def build() -> Work:
        return partial(_assign, data, claim, config.column, _load(data, path))

    run_parts(build, data.missing(claim), pool.workers, label=f"assign {config.name}{step}")
    data.publish(claim)
    pool.con.execute(view_sql(data, codes))
    return Clusters(codes, _load(data, path))


def _load(data: Dataset, path: str) -> Matrix:
    found: Matrix = np.load(io.BytesIO(data.fs.cat_file(path)), allow_pickle=False)
    return found


def _fit(pool: Pool, config: Clustered, most: int, pairs: str, folder: str) -> None:
    from curate.query import draw_sql

    train = _TRAIN.format(pairs=pairs, draw=draw_sql(config.seed), rows=config.train_rows)
    pool.con.execute(train)
    with embeddings(pool, config, "train") as stored:
        rows = units(stored)
    clusters = config.clusters or min(most, max(1, round(count(pool, pairs) ** 0.5)))
    centroids = fit_centroids(rows, clusters, config.iterations, config.seed)
    np.save(Path(folder) / "centroids.npy", centroids, allow_pickle=False)


def _assign(data: Dataset, claim: Claim, column: str, centroids: Matrix, part: int) -> Stats:
    scores = originals(data, claim.of[0], part, column)
    rows, known = unit_rows(scores[column])
    known &= rows.any(axis=1) & (len(centroids) > 0)
    cluster = np.zeros(len(rows), dtype=np.int32)
    distance = np.zeros(len(rows), dtype=np.float32)
    if known.any():
        cluster = nearest(rows, centroids).astype(np.int32)
        # not by a matrix product: equal rows have equal distances wherever they stand
        distance = np.maximum(0, 1 - (rows * centroids[cluster]).sum(axis=1))
    columns = {
        "uid": scores["uid"],
        "codes": pa.nulls(len(rows), CODES.field("codes").type),
        "cluster": pa.array(cluster, mask=~known),
        "distance": pa.array(distance, mask=~known),
    }
    data.write(claim, part, pa.table(columns))
    return {"rows": len(rows)}
