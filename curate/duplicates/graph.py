"""Graph: a finder's edges among the pairs that take part, and the walk that decides who stays.

Pairs are numbered, the best first. The walk is greedy: a pair stays unless its star, or one near
it, holds a pair that stays already. So whoever goes has a duplicate that stays, and no chain takes
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import duckdb

Indices = np.ndarray[Any, np.dtype[np.int64]]
NOBODY = -1

# Stars of one search have one leader; a later one may add to a star by another of its members, so
# that stars are the connected components: each uid takes the lowest label near it, again and again.
_LABELS = """
CREATE OR REPLACE TEMP TABLE labels AS
WITH ends AS (SELECT uid, other_uid FROM {table} WHERE member
              UNION SELECT other_uid, uid FROM {table} WHERE member)
SELECT uid, least(uid, min(other_uid)) AS centre FROM ends GROUP BY uid
"""
_LOWER = """
CREATE OR REPLACE TEMP TABLE lower AS
WITH ends AS (SELECT uid, other_uid FROM {table} WHERE member
              UNION SELECT other_uid, uid FROM {table} WHERE member)
SELECT e.uid, least(any_value(own.centre), min(l.centre)) AS centre
FROM ends e JOIN labels l ON l.uid = e.other_uid JOIN labels own ON own.uid = e.uid GROUP BY e.uid
"""
_CHANGED = (
    "SELECT count(*) AS n FROM lower JOIN labels USING (uid) WHERE lower.centre <> labels.centre"
)
_MEMBERS = """
CREATE OR REPLACE TEMP TABLE members AS
WITH linked AS (SELECT uid FROM {table} UNION SELECT other_uid FROM {table}),
     own AS (SELECT n.number, coalesce(l.centre, n.uid) AS centre
             FROM nodes n SEMI JOIN linked USING (uid) LEFT JOIN labels l USING (uid))
SELECT number, centre, dense_rank() OVER (ORDER BY centre) - 1 AS star FROM own
"""
_NEAR = """
WITH stars AS (SELECT DISTINCT centre, star FROM members),
     ends AS (SELECT coalesce(a.centre, e.uid) AS a, coalesce(b.centre, e.other_uid) AS b, distance
              FROM {table} e LEFT JOIN labels a ON a.uid = e.uid
              LEFT JOIN labels b ON b.uid = e.other_uid WHERE NOT member),
     near AS (SELECT a.star AS low, b.star AS high, min(distance) AS distance FROM ends
              JOIN stars a ON a.centre = ends.a JOIN stars b ON b.centre = ends.b
              WHERE a.star <> b.star GROUP BY 1, 2)
SELECT low AS a, high AS b, distance FROM near
UNION ALL SELECT high, low, distance FROM near ORDER BY 1, 2
"""
_BEFORE = """
SELECT a.number AS before, b.number AS pair, min(e.distance) AS distance
FROM {table} e JOIN nodes a ON a.uid = e.uid JOIN nodes b ON b.uid = e.other_uid
GROUP BY 1, 2 ORDER BY 2, 3, 1
"""


@dataclass(frozen=True)
class Graph:
    """A finder's edges among the pairs that take part.

    group[i]: the star of pair i, -1 for none. Stars near star g: near[first[g] : first[g + 1]], at
    these distances.
    """

    group: Indices
    first: Indices
    near: Indices
    distance: np.ndarray[Any, np.dtype[np.float32]]

    @property
    def stars(self) -> int:
        return len(self.first) - 1

    def within(self, most: float) -> Graph:
        """The graph without the edges of a distance above `most`."""
        kept = self.distance <= most
        before = np.concatenate([[0], np.cumsum(kept)])
        return replace(
            self, first=before[self.first], near=self.near[kept], distance=self.distance[kept]
        )


def walk(graphs: Sequence[Graph], pairs: int) -> tuple[Indices, Indices]:
    """Per pair the number of the graph whose edge removes it, and the pair that stays for it; -1
    and -1 where it stays.
    """
    holder = [[NOBODY] * g.stars for g in graphs]  # who stays of a star, or of one near it
    groups = [g.group.tolist() for g in graphs]
    why, of = np.full(pairs, NOBODY, np.int64), np.full(pairs, NOBODY, np.int64)
    for pair in range(pairs):
        for k, group in enumerate(groups):
            star = group[pair]
            if star >= 0 and holder[k][star] >= 0:
                why[pair], of[pair] = k, holder[k][star]
                break
        else:
            _stays(pair, graphs, groups, holder)
    return why, of


def _stays(
    pair: int, graphs: Sequence[Graph], groups: list[list[int]], holder: list[list[int]]
) -> None:
    for graph, group, marks in zip(graphs, groups, holder, strict=True):
        star = group[pair]
        if star < 0:
            continue
        marks[star] = pair
        for other in graph.near[graph.first[star] : graph.first[star + 1]].tolist():
            if marks[other] < 0:
                marks[other] = pair


def load_graph(con: duckdb.DuckDBPyConnection, table: str, pairs: int) -> Graph:
    """The graph of a table of edges among `nodes` (uid, number), a table of `con`."""
    from curate.query import select

    _label(con, table)
    con.execute(_MEMBERS.format(table=table))
    members = select(con, "SELECT number, star FROM members")
    near = select(con, _NEAR.format(table=table))
    group = np.full(pairs, NOBODY, dtype=np.int64)
    group[members["number"].to_numpy()] = members["star"].to_numpy()
    stars = int(group.max(initial=NOBODY)) + 1
    first = np.searchsorted(near["a"].to_numpy(), np.arange(stars + 1))
    return Graph(group, first, near["b"].to_numpy(), near["distance"].to_numpy())


def _label(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """Fill `labels` (uid, centre) of all pairs that are in a star."""
    from curate.query import select

    con.execute(_LABELS.format(table=table))
    while True:
        con.execute(_LOWER.format(table=table))
        changed = select(con, _CHANGED)["n"][0].as_py()
        con.execute("CREATE OR REPLACE TEMP TABLE labels AS FROM lower")
        if not changed:
            return


@dataclass(frozen=True)
class Orders:
    """Edges of a finder whose pairs stand in an order of its own: pair[i] goes for before[i]."""

    before: Indices
    pair: Indices
    distance: np.ndarray[Any, np.dtype[np.float32]]

    def within(self, most: float) -> Orders:
        """Those of a distance up to `most`."""
        kept = self.distance <= most
        return Orders(self.before[kept], self.pair[kept], self.distance[kept])


def load_orders(con: duckdb.DuckDBPyConnection, table: str) -> Orders:
    """Edges of a table whose `other_uid` goes for its `uid`, among `nodes` of `con`."""
    from curate.query import select

    found = select(con, _BEFORE.format(table=table))
    return Orders(*(found[name].to_numpy() for name in ("before", "pair", "distance")))
