"""Codebook: clusters of bags of codes, a quota per cluster, a hash-seeded draw within.

TL;DR's stage 1 (2305.20087) on what its captioner stores, codes_<codes>: an image is how often each
code of the codebook occurs in it (bags.py), as the square root of its share or as tf-idf, to unit
length. Pick it beside the captioner: contents that are frequent are thinned, all are kept.

1. Where `itm_by` is given: the best of the pool by it (top.best), logged; then only these.
2. Spherical k-means on a sample, assignment part by part -> codes_<name>_clusters, quotas and
   draws, as clusters.py does for all.

A pair without codes is in no cluster and is never selected. Per million pairs of 196 codes, of
3000, in 1000 clusters: 33 CPU seconds to count and project the codes, 9 to assign, and once 40 to
fit, on one thread; 0.4 GB of codes are read, 1 GB of memory is held.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from curate.claims import digest
from curate.dataset import Dataset
from curate.selectors import bags, clusters, raw_codes, top
from curate.selectors.bags import Bags
from curate.selectors.clusters import Assigned, Assigner
from curate.selectors.pool import Pool
from curate.selectors.raw_codes import RawCodes
from models.kmeans import Matrix, fit_centroids, nearest
from schemas.configs import CodebookSelector

log = logging.getLogger(__name__)


def select(pool: Pool, config: CodebookSelector) -> str:
    """SQL of at most `count` pairs. Raises ValueError where the codes are not there, and where
    `itm_by` is no numeric column of `pairs`.
    """
    of, who = _table(pool, config), "pool"
    if config.released_code:
        log.warning(
            "selector %s: released_code is for comparison only: it clusters layouts, not contents",
            config.name,
        )
    if config.itm_by is not None:
        top.best(pool, config.name, "itm_by", config.itm_by, config.itm_top_fraction)
        who = "best"
    data, released, table = pool.data, config.released_code, f"codes_{config.name}_clusters"
    key = digest([config.claimed(), pool.state])
    fitted = data.artifact(table, key, lambda folder: _fit(pool, config, of, who, Path(folder)))
    assigned = clusters.assign(
        pool, config, table, of, key, lambda: _assigner(data, fitted, of, released)
    )
    return clusters.drawn(pool, config.seed, assigned, who)


def _table(pool: Pool, config: CodebookSelector) -> str:
    table = f"codes_{config.codes}"
    if table not in pool.data.tables():
        have = ", ".join(t for t in pool.data.tables() if t.startswith("codes_")) or "none"
        raise ValueError(
            f"selector {config.name!r}: codes: {config.codes!r} has made no {table}; there are "
            f"{have}: add a captioner of kind codebook to the recipe"
        )
    return table


def _fit(pool: Pool, config: CodebookSelector, table: str, who: str, folder: Path) -> None:
    usable = f"SELECT uid, codes AS value FROM {table} SEMI JOIN {who} USING (uid)"
    usable += " WHERE len(codes) > 0"
    column, count = clusters.sample(pool, usable, config.seed, config.train_rows)
    features: Bags | RawCodes
    if config.released_code:
        features, wanted = raw_codes.fit(column), config.clusters or raw_codes.CLUSTERS
    else:
        features = bags.fit(column, config.feature, config.seed)
        wanted = clusters.how_many(config.clusters, count)
    features.save(folder)
    rows, known = features(column)
    spherical = not config.released_code
    centroids = fit_centroids(rows[known], wanted, config.iterations, config.seed, spherical)
    np.save(folder / "centroids.npy", centroids, allow_pickle=False)


def _assigner(data: Dataset, fitted: str, table: str, released: bool) -> Assigner:
    def stored(name: str) -> Any:
        content = data.fs.cat_file(f"{fitted}/{name}.npy")
        return np.load(io.BytesIO(content), allow_pickle=False)

    centroids = stored("centroids")
    features: Bags | RawCodes = (
        RawCodes(*map(stored, raw_codes.FILES)) if released else Bags(*map(stored, bags.FILES))
    )

    def assigner(part: int) -> Assigned:
        codes = data.read(table, part, ["uid", "codes"])
        rows, known = features(codes["codes"])
        if not len(centroids):
            return Assigned(codes["uid"], np.zeros(len(rows), np.int64), np.zeros(len(rows), bool))
        found = _nearest_point(rows, centroids) if released else nearest(rows, centroids)
        return Assigned(codes["uid"], found, known)

    return assigner


def _nearest_point(rows: Matrix, centroids: Matrix) -> bags.Ints:
    """Number of the centroid at the least distance: x.c - |c|^2 / 2 is largest there."""
    halves = -0.5 * (centroids**2).sum(axis=1, keepdims=True)
    ones = np.ones((len(rows), 1), np.float32)
    return nearest(np.hstack([rows, ones]), np.hstack([centroids, halves]))
