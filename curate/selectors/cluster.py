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

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.selectors.kmeans import Matrix, fit_centroids, nearest, unit_rows
from curate.selectors.pool import Pool, ranked
from schemas.configs import ClusterSelector
from schemas.tables import CODES

MOST_CLUSTERS = 3000  # TL;DR's N

_USABLE = """
CREATE OR REPLACE TEMP VIEW usable AS SELECT uid, {column} AS embedding FROM {table} SEMI JOIN pool
USING (uid) WHERE caption_id = uid AND {column} IS NOT NULL
"""
_TRAIN = """
SELECT embedding FROM usable SEMI JOIN (SELECT uid FROM usable ORDER BY {draw}, uid LIMIT {rows})
USING (uid) ORDER BY uid
"""
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

    table = _table(pool, config)
    key = _fit(pool, config, table)
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


def _table(pool: Pool, config: ClusterSelector) -> str:
    table = f"scores_{config.embeddings}"
    have = [t for t in pool.data.tables() if t.startswith("scores_") and "@" not in t]
    described = pool.con.execute(f'DESCRIBE "{table}"').fetchall() if table in have else []
    if config.column not in [row[0] for row in described]:
        raise ValueError(
            f"selector {config.name!r}: {table} has no {config.column}; name in `embeddings` a "
            f"scorer with `embeddings: true` (there are {', '.join(have) or 'no scores'})"
        )
    return table


def _fit(pool: Pool, config: ClusterSelector, table: str) -> str:
    """Key of the artifact with the centroids, fitted where it is not there."""
    from curate.query import draw_sql, select

    def make(folder: str) -> None:
        pool.con.execute(_USABLE.format(column=config.column, table=table))
        usable = select(pool.con, "SELECT count(*) AS n FROM usable")["n"][0].as_py()
        train = _TRAIN.format(draw=draw_sql(config.seed), rows=config.train_rows)
        embeddings, known = unit_rows(select(pool.con, train)["embedding"])
        clusters = config.clusters or min(MOST_CLUSTERS, max(1, round(usable**0.5)))
        centroids = fit_centroids(embeddings[known], clusters, config.iterations, config.seed)
        np.save(Path(folder) / "centroids.npy", centroids, allow_pickle=False)

    key = digest([config.claimed(), pool.state])
    pool.data.artifact(f"codes_{config.name}", key, make)
    return key


def _assign(pool: Pool, config: ClusterSelector, table: str, key: str) -> str:
    """Name of the table with every pair's cluster, its parts computed where they are missing."""
    data = pool.data
    claim = data.claim(f"codes_{config.name}", config, of=(table,), artifact=key, revisable=True)

    def build() -> Work:
        path = f"{data.path}/_artifacts/{claim.table}/{key}/centroids.npy"
        centroids = np.load(io.BytesIO(data.fs.cat_file(path)), allow_pickle=False)
        return lambda part: _assign_part(data, part, claim, config.column, centroids)

    run_parts(build, data.missing(claim), pool.workers, label=f"assign {config.name}")
    data.publish(claim)
    return claim.table


def _assign_part(data: Dataset, part: int, claim: Claim, column: str, centroids: Matrix) -> Stats:
    scores = data.read(claim.of[0], part, ["uid", "caption_id", column])
    scores = scores.filter(pc.equal(scores["uid"], scores["caption_id"]))
    rows, known = unit_rows(scores[column])
    cluster = nearest(rows, centroids) if len(centroids) and rows.shape[1] else np.zeros(len(rows))
    clusters = pa.array(cluster.astype(np.int32), mask=~known | (len(centroids) == 0))
    codes = pa.nulls(len(rows), CODES.field("codes").type)
    data.write(claim, part, pa.table({"uid": scores["uid"], "codes": codes, "cluster": clusters}))
    return {"rows": len(rows)}
