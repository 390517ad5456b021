"""Copies: who is a duplicate of whom, read from the edges of duplicates_*.

Finders write sets of equal pairs as stars: an edge of distance 0 from the lowest uid, the centre,
to each other member. Edges of a greater distance join centres. So two copies of one image need not
share an edge; they share a centre, or their centres share an edge.
"""

from __future__ import annotations

from curate import query
from curate.dataset import Dataset

_NEAR = """
WITH star AS (
    SELECT other_uid AS uid, min(uid) AS centre FROM {table} WHERE distance = 0 GROUP BY 1),
  node AS (
    SELECT e.uid, coalesce(star.centre, e.uid) AS centre
    FROM (SELECT uid FROM {table} UNION SELECT other_uid FROM {table}) e
    LEFT JOIN star USING (uid)),
  near AS (
    SELECT DISTINCT centre AS a, centre AS b, 0 AS distance FROM node
    UNION ALL SELECT uid, other_uid, distance FROM {table} WHERE distance > 0
    UNION ALL SELECT other_uid, uid, distance FROM {table} WHERE distance > 0)
SELECT x.uid AS one, y.uid AS other, near.distance AS distance, {kind} AS kind
FROM (SELECT * FROM node SEMI JOIN ({ones}) USING (uid)) x
  JOIN near ON near.a = x.centre
  JOIN (SELECT * FROM node SEMI JOIN ({others}) USING (uid)) y ON y.centre = near.b
WHERE x.uid <> y.uid
"""


def near_sql(table: str, ones: str, others: str) -> str:
    """SQL of (one, other, distance, kind): duplicates between two sets of pairs.

    ones, others: SQL that gives a column uid. At least one of the sets has to be thin, such as the
    pairs that stay: within a large set of equal pairs everyone is a duplicate of everyone.
    """
    kind = query.literal(table.removeprefix("duplicates_"))
    return _NEAR.format(table=query.quote(table), kind=kind, ones=ones, others=others)


def standing_sql(data: Dataset) -> str:
    """SQL of (uid, keep): what dedup said of the pairs that took part in it.

    `decisions_dedup` keeps all others as well: they are out for an earlier reason.
    """
    among = data.config_of("decisions_dedup").get("among")
    if among == "downloaded" or "decisions_quality" not in data.tables():
        return "SELECT uid, keep FROM decisions_dedup"
    quality = "SELECT uid FROM decisions_quality WHERE keep"
    return f"SELECT uid, keep FROM decisions_dedup SEMI JOIN ({quality}) USING (uid)"


def tables_of(data: Dataset) -> list[str]:
    """The tables of edges that this version has."""
    return [t for t in query.views(data) if t.startswith("duplicates_")]
