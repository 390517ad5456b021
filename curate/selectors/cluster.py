"""Cluster: spherical k-means on stored embeddings, a quota per cluster, a hash-seeded draw within.

TL;DR's stage 1 (2305.20087). Pick it when the pool is redundant: fewer of the same, some of all.
1. Fit k-means on the `train_rows` pairs with the lowest draw(seed, uid), sorted by uid, on one
   thread.
2. Assign every pair that has an embedding to its nearest centroid, part by part -> codes_<name>.
3. Quota of a cluster: count times its share of the pool, by largest remainder, so the sum is
   exact.
4. In each cluster take the lowest draw(seed, uid).

A pair without an embedding is in no cluster and is never selected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits import clusters
from curate.selectors.kmeans import Matrix, unit_rows
from curate.selectors.pool import Pool, ranked
from schemas.configs import ClusterSelector
from schemas.tables import CODES

MOST_CLUSTERS = 3000  # TL;DR's N

_CLUSTERED = """
CREATE OR REPLACE TEMP VIEW clustered AS
SELECT uid, cluster FROM pool JOIN {codes} USING (uid) WHERE cluster IS NOT NULL
"""
_CHOSEN = """
WITH drawn AS (SELECT uid, cluster, {draw} AS draw FROM clustered),
     placed AS (SELECT *, row_number() OVER (PARTITION BY cluster ORDER BY draw, uid) AS place
                FROM drawn)
SELECT uid, cluster, draw FROM placed JOIN quotas USING (cluster) WHERE place <= quota
"""


def select(pool: Pool, config: ClusterSelector) -> str:
    """SQL of at most `count` pairs. Raises ValueError where the embeddings are not there."""
    from curate.query import draw_sql, quote, view_sql
    from curate.query import select as run

    table = clusters.table_of(pool.data, config, "selector")
    key = _fit(pool, config)
    codes = _assign(pool, config, table, key)
    pool.con.execute(view_sql(pool.data, codes))
    pool.con.execute(_CLUSTERED.format(codes=quote(codes)))
    sizes = run(pool.con, "SELECT cluster, count(*) AS n FROM clustered GROUP BY 1 ORDER BY 1")
    quota = pa.array(quotas(sizes["n"].to_pylist(), pool.count), pa.int64())
    pool.con.register("quotas", pa.table({"cluster": sizes["cluster"], "quota": quota}))
    chosen = _CHOSEN.format(draw=draw_sql(config.seed))
    return ranked(chosen, "draw, uid", pool.count, cluster="cluster")


def quotas(sizes: Sequence[int], count: int) -> list[int]:
    """How many of each cluster: its share of `count`, by largest remainder; the sum is min(count,
    sum(sizes)).

    Equal remainders go to the larger cluster, then to the lower number.
    """
    rows = sum(sizes)
    count = min(count, rows)
    shares = [divmod(count * n, max(rows, 1)) for n in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda c: (-shares[c][1], -sizes[c], c))
    lucky = set(by_remainder[: count - sum(whole for whole, _ in shares)])
    return [whole + (c in lucky) for c, (whole, _) in enumerate(shares)]


def _fit(pool: Pool, config: ClusterSelector) -> str:
    """Key of the artifact with the centroids, fitted where it is not there."""

    def make(folder: str) -> None:
        clusters.fit(pool.con, config, "SELECT uid FROM pool", MOST_CLUSTERS, folder)

    key = digest([config.claimed(), pool.state])
    pool.data.artifact(f"codes_{config.name}", key, make)
    return key


def _assign(pool: Pool, config: ClusterSelector, table: str, key: str) -> str:
    """Name of the table with every pair's cluster, its parts computed where they are missing."""
    data = pool.data
    claim = data.claim(f"codes_{config.name}", config, of=(table,), artifact=key, revisable=True)

    def build() -> Work:
        centroids = clusters.load(data, claim.table, key)
        return lambda part: _assign_part(data, part, claim, config.column, centroids)

    run_parts(build, data.missing(claim), pool.workers, label=f"assign {config.name}")
    data.publish(claim)
    return claim.table


def _assign_part(data: Dataset, part: int, claim: Claim, column: str, centroids: Matrix) -> Stats:
    scores = clusters.originals(data, claim.of[0], part, column)
    rows, known = unit_rows(scores[column])
    cluster = clusters.assigned(rows, centroids).astype(np.int32)
    numbers = pa.array(cluster, mask=~known | (len(centroids) == 0))
    codes = pa.nulls(len(rows), CODES.field("codes").type)
    data.write(claim, part, pa.table({"uid": scores["uid"], "codes": codes, "cluster": numbers}))
    return {"rows": len(rows)}
