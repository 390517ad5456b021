"""Copies: who is a duplicate of whom, read from the edges of duplicates_*.

A star is a leader and members that count as the same; an edge without `member` stands for all pairs
of two stars (curate/duplicates). So two copies of one image need not share an edge.
"""

from __future__ import annotations

from curate import query
from curate.dataset import Dataset

_OTHER_END = "CASE WHEN e.uid = {at}.uid THEN e.other_uid ELSE e.uid END"
_TOUCHES = "(e.uid = {at}.uid OR e.other_uid = {at}.uid)"
_NEAR = """
WITH RECURSIVE edge AS MATERIALIZED (FROM {table}),
  mine(uid) AS (
    SELECT {me} UNION
    SELECT {other_of_mine} FROM mine JOIN edge e ON e.member AND {touches_mine}),
  theirs(uid, distance) AS (
    SELECT {other_of_mine}, e.distance FROM mine JOIN edge e ON NOT e.member AND {touches_mine}
    UNION
    SELECT {other_of_theirs}, theirs.distance
    FROM theirs JOIN edge e ON e.member AND {touches_theirs}),
  direct AS (
    SELECT {other_of_me} AS uid, min(e.distance) AS distance
    FROM (SELECT {me} AS uid) me JOIN edge e ON {touches_me} GROUP BY 1),
  found AS (
    SELECT uid, CAST(0 AS FLOAT) AS distance FROM mine WHERE uid <> {me}
    UNION ALL SELECT uid, min(distance) FROM theirs ANTI JOIN mine USING (uid) GROUP BY uid)
SELECT found.uid AS other, coalesce(direct.distance, found.distance) AS distance, {kind} AS kind
FROM found LEFT JOIN direct USING (uid)
"""


def near_sql(table: str, uid: str) -> str:
    """SQL of (other, distance, kind): the duplicates of a pair; the distance between their stars
    where no edge joins the two themselves, 0 within a star.
    """
    ends = {
        f"{what}_{at}": sql.format(at=at)
        for what, sql in (("other_of", _OTHER_END), ("touches", _TOUCHES))
        for at in ("mine", "theirs", "me")
    }
    kind = query.literal(table.removeprefix("duplicates_"))
    return _NEAR.format(table=query.quote(table), me=query.literal(uid), kind=kind, **ends)


_REMOVED = """
SELECT r.one, r.other, {kind} AS kind, coalesce(
    min(direct.distance), CASE WHEN r.a = r.b THEN 0 END, min(stars.distance)) AS distance
FROM (SELECT d.duplicate_of AS one, d.uid AS other,
             coalesce(x.leader, d.duplicate_of) AS a, coalesce(y.leader, d.uid) AS b
      FROM decisions_dedup d LEFT JOIN ({leaders}) x ON x.uid = d.duplicate_of
      LEFT JOIN ({leaders}) y ON y.uid = d.uid
      WHERE d.reason = {reason} AND d.duplicate_of IS NOT NULL) r
LEFT JOIN ({both}) direct ON direct.a = r.one AND direct.b = r.other
LEFT JOIN ({both}) stars ON stars.a = r.a AND stars.b = r.b
GROUP BY r.one, r.other, r.a, r.b
"""


def removed_sql(data: Dataset) -> str:
    """SQL of (one, other, kind, distance): every removed pair `other` with the pair `one` that
    stays for it; the distance between their stars where no edge joins the two themselves, 0 within
    a star.
    """
    return " UNION ALL ".join(_removed(t) for t in tables_of(data))


def _removed(table: str) -> str:
    edges, name = query.quote(table), table.removeprefix("duplicates_")
    leaders = f"SELECT other_uid AS uid, min(uid) AS leader FROM {edges} WHERE member GROUP BY 1"
    both = " UNION ALL ".join(
        f"SELECT {a} AS a, {b} AS b, distance FROM {edges}"
        for a, b in (("uid", "other_uid"), ("other_uid", "uid"))
    )
    reason, kind = query.literal(f"duplicate_{name}"), query.literal(name)
    return f"({_REMOVED.format(leaders=leaders, both=both, reason=reason, kind=kind)})"


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
