"""Groups: what compares each pair with all others does so within groups of at most `sample_rows`.

The pool's pairs that have an embedding, in the order of draw(seed, uid), are cut into as few groups
of equal size as that takes; each gives its share by largest remainder. A pool that fits is one
group, and then nothing depends on the cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from curate.selectors.clusters import quotas
from curate.selectors.embedded import Grouped, Stored, embeddings, runs, units, usable
from curate.selectors.pool import Pool, ranked
from models.kmeans import Matrix

Indices = np.ndarray[Any, np.dtype[np.int64]]
# unit rows in the order of their uids, the one with the lowest draw, how many -> row numbers in the
# order in which they are taken
Pick = Callable[[Matrix, int, int], Indices]

_GROUPED = """
CREATE OR REPLACE TEMP TABLE grouped AS
SELECT *, row_number() OVER (ORDER BY part_of, uid) - 1 AS place
FROM (SELECT uid, part, draw, ntile({groups}) OVER (ORDER BY draw, uid) AS part_of
      FROM (SELECT uid, part, {draw} AS draw FROM usable))
"""
_TAKEN = pa.schema([("uid", pa.string()), ("turn", pa.int64()), ("part_of", pa.int64())])


def select_by_group(pool: Pool, config: Grouped, pick: Pick) -> str:
    """SQL of `count` pairs: every group's first, in the order of the groups, then every group's
    second ... Raises ValueError where the embeddings are not there.
    """
    from curate.query import draw_sql

    rows = usable(pool, config)
    count = min(pool.count, rows)
    groups = max(1, math.ceil(rows / config.sample_rows))
    shares = quotas([rows // groups + (g < rows % groups) for g in range(groups)], count)
    pool.con.execute(_GROUPED.format(groups=groups, draw=draw_sql(config.seed)))
    taken = [_TAKEN.empty_table()]
    with embeddings(pool, config, "grouped") as stored:
        sql = "SELECT * FROM grouped ORDER BY place"
        for group in runs(pool, sql, "part_of", config.sample_rows):
            share = shares[group["part_of"][0].as_py() - 1]
            taken.append(_taken(group, stored, share, pick))
    pool.con.register("taken", pa.concat_tables(taken))
    return ranked("SELECT * FROM taken", "turn, part_of", count)


def _taken(group: pa.Table, stored: Stored, share: int, pick: Pick) -> pa.Table:
    first, start = group["place"][0].as_py(), int(np.argmin(group["draw"].to_numpy()))
    rows = pick(units(stored[first : first + len(group)]), start, share)
    uids, part_of = group["uid"].take(rows), group["part_of"].take(rows)
    return pa.table([uids, np.arange(len(rows)), part_of], schema=_TAKEN)
