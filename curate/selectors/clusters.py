"""Clusters: what the selectors by clusters share.

1. Fit on the `train_rows` usable pairs with the lowest draw(seed, uid), sorted by uid.
2. Give every pair its cluster, part by part on workers -> a table of the selector's own.
3. Quota of a cluster: count times its share of the pool, by largest remainder, so the sum is
   exact.
4. In each cluster take the lowest draw(seed, uid).

What is usable, what is fitted and how a part is assigned are the selector's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.selectors.pool import Pool, ranked
from schemas.configs import ClusterSelector, CodebookSelector
from schemas.tables import CODES

MOST_CLUSTERS = 3000  # TL;DR's N


@dataclass(frozen=True)
class Assigned:
    """The pairs of a part: uid of each, its cluster, and whether it is in one."""

    uid: pa.ChunkedArray
    cluster: np.ndarray[Any, np.dtype[np.int64]]
    known: np.ndarray[Any, np.dtype[np.bool_]]


Selector = ClusterSelector | CodebookSelector
Assigner = Callable[[int], Assigned]  # of a part

_TRAIN = """
SELECT value FROM ({usable}) SEMI JOIN (SELECT uid FROM ({usable}) ORDER BY {draw}, uid LIMIT {n})
USING (uid) ORDER BY uid
"""
_CLUSTERED = """
CREATE OR REPLACE TEMP VIEW clustered AS
SELECT uid, cluster FROM {who} JOIN {assigned} USING (uid) WHERE cluster IS NOT NULL
"""
_CHOSEN = """
WITH drawn AS (SELECT uid, cluster, {draw} AS draw FROM clustered),
     placed AS (SELECT *, row_number() OVER (PARTITION BY cluster ORDER BY draw, uid) AS place
                FROM drawn)
SELECT uid, cluster, draw FROM placed JOIN quotas USING (cluster) WHERE place <= quota
"""


def how_many(asked: int | None, rows: int) -> int:
    """Clusters of `rows` pairs: as asked, else the square root, at most MOST_CLUSTERS."""
    return asked or min(MOST_CLUSTERS, max(1, round(rows**0.5)))


def sample(pool: Pool, usable: str, seed: int, rows: int) -> tuple[pa.ChunkedArray, int]:
    """`value` of the training pairs, and how many there are to train on. usable: SQL of uid and
    value.
    """
    from curate.query import draw_sql, select

    count = select(pool.con, f"SELECT count(*) AS n FROM ({usable})")["n"][0].as_py()
    train = _TRAIN.format(usable=usable, draw=draw_sql(seed), n=rows)
    return select(pool.con, train)["value"], count


def assign(
    pool: Pool, config: Selector, table: str, of: str, key: str, build: Callable[[], Assigner]
) -> str:
    """Write every pair's cluster into `table`, part by part of the table `of`; returns its name.

    key: of what was fitted. Raises ValueError where that table is another unit's.
    """
    data = pool.data  # workers cannot be sent the pool's connection
    _refuse_another(data, config, table)
    claim = data.claim(table, config, of=(of,), artifact=key, revisable=True)

    def work() -> Work:
        assigner = build()
        return lambda part: _write(data, claim, part, assigner(part))

    run_parts(work, data.missing(claim), pool.workers, label=f"assign {config.name}")
    data.publish(claim)
    return table


def _refuse_another(data: Dataset, config: Selector, table: str) -> None:
    made = data.config_of(table)
    if made and made.get("kind") != config.kind:
        raise ValueError(
            f"selector {config.name!r} writes its clusters to {table}, which "
            f"{made.get('kind', made.get('name'))!r} has made: give the selector another name"
        )


def _write(data: Dataset, claim: Claim, part: int, found: Assigned) -> Stats:
    clusters = pa.array(found.cluster.astype(np.int32), mask=~found.known)
    codes = pa.nulls(len(clusters), CODES.field("codes").type)
    data.write(claim, part, pa.table({"uid": found.uid, "codes": codes, "cluster": clusters}))
    return {"rows": len(clusters)}


def drawn(pool: Pool, seed: int, table: str, who: str = "pool") -> str:
    """SQL of `count` pairs of the view `who`, from each cluster in `table` its share."""
    from curate.query import draw_sql, quote, select, view_sql

    pool.con.execute(view_sql(pool.data, table))
    pool.con.execute(_CLUSTERED.format(who=who, assigned=quote(table)))
    sizes = select(pool.con, "SELECT cluster, count(*) AS n FROM clustered GROUP BY 1 ORDER BY 1")
    quota = pa.array(quotas(sizes["n"].to_pylist(), pool.count), pa.int64())
    pool.con.register("quotas", pa.table({"cluster": sizes["cluster"], "quota": quota}))
    chosen = _CHOSEN.format(draw=draw_sql(seed))
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
