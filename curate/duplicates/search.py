"""What a duplicate finder is given and gives back, and the stars that most of them need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from curate.dataset import Dataset
from schemas.configs import Workers

ROWS = 4_000_000  # about what one bucket holds: its rows are all that a worker has in memory

_ROWS = """
SELECT uid, {key} AS key, {fresh} AS fresh FROM ({samples}) samples {join}
WHERE status = 'success' AND {where}
"""
_STARS = """
WITH bucket AS (SELECT * FROM ({rows}) WHERE key IS NOT NULL AND {here}),
     stars AS (SELECT key, coalesce(min(uid) FILTER (NOT fresh), min(uid)) AS centre
               FROM bucket GROUP BY key HAVING count(*) > 1 AND bool_or(fresh))
SELECT s.centre AS uid, b.uid AS other_uid, CAST(0 AS FLOAT) AS distance, true AS member
FROM bucket b JOIN stars s ON s.key = b.key WHERE b.uid <> s.centre AND b.fresh ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Scope:
    """The pairs of `samples`, and who of them is fresh: in a part that no search has seen yet.

    fresh: numbers of such parts; None: all of them. Only edges that have a fresh end are asked for:
    those between the others are in the table already. workers: for what a finder does by part
    before its search.
    """

    data: Dataset
    fresh: frozenset[int] | None = None
    workers: Workers | int = 0

    def rows(self, key: str, *, join: str = "", where: str = "true") -> str:
        """SQL that gives uid, key and fresh of the downloaded pairs.

        key, where: SQL over `samples` and what `join` brings.
        """
        from curate.query import with_part_sql

        samples = with_part_sql(self.data, "samples")
        return _ROWS.format(key=key, fresh=self.fresh_sql, samples=samples, join=join, where=where)

    @property
    def fresh_sql(self) -> str:
        """SQL over a row with `part`: whether it is fresh."""
        if self.fresh is None:
            return "true"
        return f"part IN ({', '.join(map(str, sorted(self.fresh))) or 'NULL'})"


@dataclass(frozen=True)
class Search:
    """A finder's work, cut into buckets that know nothing of each other.

    method: what was compared. edges(bucket): uid, other_uid, distance, member, sorted by the two
    uids; each edge is in exactly one bucket.

    A star is a leader (`uid` of its edges with `member`) and the others that count as the same,
    each pair of them. An edge without `member` joins two leaders, or pairs in no star, the lower
    uid first, and stands for all members of the one and all of the other.
    """

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
    """Edges to the fresh rows of each set with an equal `key`, from its lowest uid that is not
    fresh, else from its lowest, in slice `number` of `of`.

    rows: SQL that gives uid, key and fresh. DuckDB joins out of core; only the edges come back.
    """
    from curate.query import connect, select

    con = connect(data)
    try:
        return select(con, _STARS.format(rows=rows, here=slice_sql("key", number, of)))
    finally:
        con.close()
