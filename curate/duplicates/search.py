"""What a duplicate finder gives back, and the stars that all of them need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from curate.dataset import Dataset

ROWS = 4_000_000  # about what one bucket holds: its rows are all that a worker has in memory

DOWNLOADED = "SELECT uid, {key} AS key FROM samples {join} WHERE status = 'success'"

STARS = """
WITH bucket AS (SELECT * FROM ({rows}) WHERE key IS NOT NULL AND {here}),
     stars AS (SELECT key, min(uid) AS centre FROM bucket GROUP BY key HAVING count(*) > 1)
SELECT s.centre AS uid, b.uid AS other_uid, CAST(0 AS FLOAT) AS distance
FROM bucket b JOIN stars s ON s.key = b.key WHERE b.uid <> s.centre ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Search:
    """A finder's work, cut into buckets that know nothing of each other.

    tables: what it is computed from. method: what was compared. edges(bucket): uid (the lower
    one), other_uid, distance, sorted; each edge is in exactly one bucket.
    """

    tables: tuple[str, ...]
    method: str
    buckets: int
    edges: Callable[[int], pa.Table]


def buckets_for(data: Dataset) -> int:
    """How many buckets of ROWS pairs `samples` makes."""
    return max(1, -(-data.rows("samples") // ROWS))


def slice_sql(key: str, number: int, of: int) -> str:
    """SQL predicate: whether a key belongs to slice `number` of `of`, the same in every release of
    DuckDB.
    """
    if of == 1:
        return "true"
    return f"CAST('0x' || substr(sha256(CAST({key} AS VARCHAR)), 1, 8) AS BIGINT) % {of} = {number}"


def stars(data: Dataset, rows: str, number: int, of: int) -> pa.Table:
    """Edges from the lowest uid of each set of rows with an equal `key` to the others, in slice
    `number` of `of`.

    rows: SQL that gives uid and key. DuckDB joins out of core; only the edges come back.
    """
    from curate.query import connect, select

    con = connect(data)
    try:
        return select(con, STARS.format(rows=rows, here=slice_sql("key", number, of)))
    finally:
        con.close()
