"""Removed: which of the pairs that have edges go, why, and who stays for them.

The driver holds one small row per pair that has an edge or matches an item of an evaluation set.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from curate.duplicates.graph import Graph, Indices, Orders, load_graph, load_orders, walk
from schemas.configs import DedupConfig, DuplicatesConfig

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)
NOBODY_SQL = "SELECT uid FROM samples WHERE false"

_TAKING_PART = """
SELECT count(*) AS n FROM samples {quality} WHERE status = 'success'
"""
_RATED = """
WITH linked AS ({linked}),
     scored AS ({pairs}),
     rated AS (SELECT p.uid, {rating} AS rating
               FROM scored p SEMI JOIN linked USING (uid) {quality}
               WHERE samples__status = 'success')
SELECT uid, row_number() OVER (ORDER BY rating DESC NULLS LAST, uid) - 1 AS number
FROM rated ORDER BY number {limit}
"""


_NODES = """
CREATE TEMP TABLE nodes AS
SELECT uid, row_number() OVER (ORDER BY number) - 1 AS number
FROM rated ANTI JOIN matched USING (uid)
"""


@dataclass(frozen=True)
class Removed:
    """The removed pairs, by uid, and the pairs that stay for them ("" for items of an evaluation
    set); reasons[why[i]] tells why uids[i] goes.
    """

    uids: np.ndarray[Any, np.dtype[np.bytes_]]
    why: Indices
    of: np.ndarray[Any, np.dtype[np.bytes_]]
    reasons: list[str]

    def decide(self, samples: pa.Table) -> pa.Table:
        """Rows of decisions_dedup for these pairs."""
        reasons: list[str | None] = [None] * samples.num_rows
        partners: list[str | None] = [None] * samples.num_rows
        if len(self.uids):
            wanted = np.array(samples["uid"].to_pylist(), dtype=self.uids.dtype)
            at = np.minimum(np.searchsorted(self.uids, wanted), len(self.uids) - 1)
            for row in np.flatnonzero(self.uids[at] == wanted):
                reasons[row] = self.reasons[self.why[at[row]]]
                partners[row] = self.of[at[row]].decode() or None
        keep = [reason is None for reason in reasons]
        columns = {"uid": samples["uid"], "keep": keep, "reason": pa.array(reasons, pa.string())}
        return pa.table(columns | {"duplicate_of": pa.array(partners, pa.string())})

    def copies(self, names: Sequence[str]) -> pa.Table:
        """uid, duplicate_of and finder of what the finders with these names have removed."""
        wanted = [k for k, reason in enumerate(self.reasons) if reason in names]
        rows = np.isin(self.why, wanted)
        return pa.table(
            {
                "uid": pa.array(self.uids[rows].astype(str).tolist(), pa.string()),
                "duplicate_of": pa.array(self.of[rows].astype(str).tolist(), pa.string()),
                "finder": pa.array([self.reasons[k] for k in self.why[rows]], pa.string()),
            }
        )


def removed_pairs(
    data: Dataset, config: DedupConfig, finders: Sequence[DuplicatesConfig], matches: Sequence[str]
) -> Removed:
    """Decide on the edges of these finders and the matches_* tables of the dataset's version."""
    from curate.query import connect, select

    tables = [f"duplicates_{f.name}" for f in finders]
    ends = [f"SELECT {end} AS uid FROM {t}" for t in tables for end in ("uid", "other_uid")]
    linked = " UNION ".join([*ends, *(f"SELECT uid FROM {t}" for t in matches)])
    con = connect(data)
    try:
        con.register("rated", rated(data, con, config, linked or NOBODY_SQL))
        matched = select(con, _matched(matches))
        con.register("matched", matched)
        con.execute(_NODES)
        nodes = select(con, "SELECT uid FROM nodes ORDER BY number")
        why, of = _Walk(con, finders, nodes.num_rows).decided(_may_go(data, con, config))
    finally:
        con.close()
    gone = np.flatnonzero(why >= 0)
    log.info("dedup: %d of %d pairs with duplicates are removed", len(gone), nodes.num_rows)
    names, of_items = _names(nodes), _names(matched)
    uids = np.concatenate([names[gone], of_items])
    order = np.argsort(uids)
    whys = np.concatenate([why[gone], len(finders) + matched["number"].to_numpy()])
    partners = np.concatenate([names[of[gone]], np.zeros(len(of_items), names.dtype)])
    reasons = [f"duplicate_{f.name}" for f in finders]
    reasons += [f"evaluation_{t.removeprefix('matches_')}" for t in matches]
    return Removed(uids[order], whys[order], partners[order], reasons)


def _names(table: pa.Table) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    return np.array(table["uid"].to_pylist(), dtype="S32")


def _matched(matches: Sequence[str]) -> str:
    """SQL of the pairs that take part and match an item: uid and the number of the first set."""
    bodies = [f"SELECT uid, {n} AS number FROM {t}" for n, t in enumerate(matches)]
    body = " UNION ALL ".join(bodies) or "SELECT '' AS uid, 0 AS number WHERE false"
    return f"SELECT uid, min(number) AS number FROM ({body}) SEMI JOIN rated USING (uid) GROUP BY 1"


class _Walk:
    """The walk over all finders' edges, as far as they are within a distance."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, finders: Sequence[DuplicatesConfig], pairs: int
    ) -> None:
        self.pairs = pairs
        self.semantic = [k for k, f in enumerate(finders) if f.kind == "semantic"]
        self.orders: dict[int, Orders] = {}
        self.graphs: dict[int, Graph] = {}
        for k, config in enumerate(finders):
            table = f"duplicates_{config.name}"
            if config.kind == "semantic" and config.mode == "code":
                self.orders[k] = load_orders(con, table)
            else:
                self.graphs[k] = load_graph(con, table, pairs)

    def decided(self, may_go: int | None) -> tuple[Indices, Indices]:
        """Number of the finder that removes each pair and who stays for it, -1 where it stays.

        may_go: how many may be removed at most; the semantic edges are then cut to the largest
        distance that does it. None: any number.
        """
        if may_go is None:
            return self._within(float("inf"))
        levels = np.unique(np.concatenate([[-1.0], *self._distances()]))
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high + 1) // 2
            fits = int((self._within(float(levels[middle]))[0] >= 0).sum()) <= may_go
            low, high = (middle, high) if fits else (low, middle - 1)
        log.info("dedup: eps %.4f keeps the share asked for", max(float(levels[low]), 0.0))
        return self._within(float(levels[low]))

    def _distances(self) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        found = [orders.distance for orders in self.orders.values()]
        return found + [self.graphs[k].distance for k in self.semantic if k in self.graphs]

    def _within(self, most: float) -> tuple[Indices, Indices]:
        graphs = [g.within(most) if k in self.semantic else g for k, g in self.graphs.items()]
        found, of = walk(graphs, self.pairs)
        why = np.array([*self.graphs, -1])[found]  # the last is for who stays
        for k, orders in self.orders.items():
            _in_order(orders.within(most), k, why, of)
        return why, of


def _in_order(orders: Orders, number: int, why: Indices, of: Indices) -> None:
    """Remove the pairs that stay so far and have one before them."""
    pair, first = np.unique(orders.pair, return_index=True)
    stays = why[pair] < 0
    why[pair[stays]] = number
    of[pair[stays]] = orders.before[first[stays]]


def _quality(data: Dataset, config: DedupConfig) -> str:
    if config.among == "survivors" and "decisions_quality" in data.tables():
        return "SEMI JOIN (SELECT uid FROM decisions_quality WHERE keep) USING (uid)"
    return ""


def _may_go(data: Dataset, con: duckdb.DuckDBPyConnection, config: DedupConfig) -> int | None:
    """How many of the pairs that take part may be removed; None: any number."""
    from curate.query import select

    if config.keep is None:
        return None
    rows = int(select(con, _TAKING_PART.format(quality=_quality(data, config)))["n"][0].as_py())
    return rows - math.ceil(Fraction(repr(config.keep)) * rows)


def rated(
    data: Dataset,
    con: duckdb.DuckDBPyConnection,
    config: DedupConfig,
    linked: str,
    limit: str = "",
) -> pa.Table:
    """The pairs of `linked` (SQL) that take part: uid and number, the best first."""
    from curate.query import number_sql, pairs_sql, select, views

    pairs, quality = pairs_sql(con, views(data), decided=False), _quality(data, config)
    sql = _RATED.format(
        linked=linked, pairs=pairs, rating=number_sql(config.keep_by), quality=quality, limit=limit
    )
    try:
        return select(con, sql)
    except ValueError as error:
        raise ValueError(
            f"keep_by: {config.keep_by!r} has to be a number over one row of `pairs` "
            f"(urls, samples, scores_*): {error}"
        ) from error
