"""Cluster: spherical k-means on stored embeddings, a quota per cluster, a hash-seeded draw within.

TL;DR's stage 1 (2305.20087). Pick it when the pool is redundant: fewer of the same, some of all.
What it shares with the other selectors by clusters is in clusters.py: a sample to fit on, the
assignment part by part -> codes_<name>, quotas and draws. k-means is fitted on one thread.

A pair without an embedding is in no cluster and is never selected.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from curate.claims import digest
from curate.dataset import Dataset
from curate.selectors import clusters
from curate.selectors.clusters import Assigned, Assigner
from curate.selectors.pool import Pool, embeddings_table
from models.kmeans import fit_centroids, nearest, unit_rows
from schemas.configs import ClusterSelector

_USABLE = """
SELECT uid, {column} AS value FROM {table} SEMI JOIN pool USING (uid)
WHERE caption_id = uid AND {column} IS NOT NULL"""


def select(pool: Pool, config: ClusterSelector) -> str:
    """SQL of at most `count` pairs. Raises ValueError where the embeddings are not there."""
    of = embeddings_table(pool, config.name, config.embeddings, config.column)
    data, table, column = pool.data, f"codes_{config.name}", config.column
    key = digest([config.claimed(), pool.state])
    fitted = data.artifact(table, key, lambda folder: _fit(pool, config, of, Path(folder)))
    assigned = clusters.assign(
        pool, config, table, of, key, lambda: _assigner(data, fitted, of, column)
    )
    return clusters.drawn(pool, config.seed, assigned)


def _fit(pool: Pool, config: ClusterSelector, table: str, folder: Path) -> None:
    usable = _USABLE.format(column=config.column, table=table)
    column, count = clusters.sample(pool, usable, config.seed, config.train_rows)
    rows, known = unit_rows(column)
    wanted = clusters.how_many(config.clusters, count)
    centroids = fit_centroids(rows[known], wanted, config.iterations, config.seed)
    np.save(folder / "centroids.npy", centroids, allow_pickle=False)


def _assigner(data: Dataset, fitted: str, table: str, column: str) -> Assigner:
    stored = data.fs.cat_file(f"{fitted}/centroids.npy")
    centroids = np.load(io.BytesIO(stored), allow_pickle=False)

    def assigner(part: int) -> Assigned:
        scores = data.read(table, part, ["uid", "caption_id", column])
        scores = scores.filter(pc.equal(scores["uid"], scores["caption_id"]))
        rows, known = unit_rows(scores[column])
        if not (len(centroids) and rows.shape[1]):
            nothing = np.zeros(len(rows), bool)
            return Assigned(scores["uid"], nothing.astype(np.int64), nothing)
        return Assigned(scores["uid"], nearest(rows, centroids), known)

    return assigner
