"""Distributions of scores, counted by DuckDB, with the thresholds that the rules put into them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from curate import query
from curate.reporting.text import home, number
from schemas.configs import Rule

if TYPE_CHECKING:
    import duckdb

BINS = 40
_INTEGERS = frozenset(
    {
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "HUGEINT",
    }
)
_REALS = frozenset({"FLOAT", "DOUBLE"})
_MAIN_PER_TABLE = 3  # columns of a scorer that are drawn where no rule names any

# the range is that of a fair draw by uid above so many rows: bounded memory, and equal at every run
_RANGE_ROWS = 100_000
_RANGE = """
SELECT coalesce(quantile_cont(v, 0.005) FILTER (WHERE drawn), min(v)) AS lo,
  coalesce(quantile_cont(v, 0.995) FILTER (WHERE drawn), max(v)) AS hi,
  count(v) AS known, count(*) AS rows
FROM (SELECT CASE WHEN isfinite({value}) THEN {value} END AS v,
    substr(uid, 9, 4) <= printf('%04x', CAST(65535 * least(1, {range_rows} / n) AS INT)) AS drawn
  FROM {table}, (SELECT count(*) AS n FROM {table}) {original})
"""
_COUNTS = """
SELECT
  CAST(least({bins} - 1, greatest(0, floor(({value} - {lo!r}) / {width!r}))) AS INTEGER) AS bin,
  count(*) AS everyone, count(*) FILTER (WHERE decisions.keep) AS kept
FROM (SELECT * FROM {table} {original}) t LEFT JOIN decisions ON decisions.uid = t.uid
WHERE isfinite({value}) GROUP BY bin
"""


@dataclass(frozen=True)
class Threshold:
    """Where a rule cuts a column: pairs on its `drops` side are dropped."""

    rule: str
    value: float
    drops: Literal["below", "above"]

    @property
    def label(self) -> str:
        return f"{self.rule}: {self.drops} {number(self.value)}"


@dataclass(frozen=True)
class Histogram:
    """Equal bins from lo to hi, which leave out 0.5 % at either end.

    The outermost bins hold what lies beyond.
    """

    column: str  # of `pairs`
    lo: float
    hi: float
    everyone: tuple[int, ...]  # per bin
    kept: tuple[int, ...]  # of them, in the result
    known: int
    unknown: int
    whole_numbers: bool
    thresholds: tuple[Threshold, ...] = ()


def histograms(
    con: duckdb.DuckDBPyConnection, rules: Sequence[Rule], tables: Sequence[str]
) -> list[Histogram]:
    """One per numeric column that a rule uses, in the rules' order; else the scorers' main ones.

    con: of `query.connect`. Two scans of each column; memory does not grow with the pool.
    """
    numeric = {c: kind for t in tables for c, kind in _numeric(con, t).items()}
    texts = [rule.subject for rule in rules]
    used = [c for text in texts for c in numeric if re.search(rf"\b{re.escape(c)}\b", text)]
    drawn = list(dict.fromkeys(used)) or _main(numeric, tables)
    found = (
        histogram(con, column, numeric[column] in _INTEGERS, rules, tables) for column in drawn
    )
    return [h for h in found if h is not None]


def _numeric(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    described = con.execute(f"DESCRIBE {query.quote(table)}").fetchall()
    return {f"{table}__{row[0]}": row[1] for row in described if row[1] in _INTEGERS | _REALS}


def _main(numeric: dict[str, str], tables: Sequence[str]) -> list[str]:
    scorers = [t for t in tables if t.startswith("scores_")]
    reals = [
        [c for c, kind in numeric.items() if kind in _REALS and home(c, tables)[0] == t]
        for t in scorers
    ]
    return [column for columns in reals for column in columns[:_MAIN_PER_TABLE]]


def histogram(
    con: duckdb.DuckDBPyConnection,
    column: str,
    whole: bool,
    rules: Sequence[Rule],
    tables: Sequence[str],
) -> Histogram | None:
    """The distribution of one column of `pairs`; None where no value is known."""
    table, name = home(column, tables)
    names = {
        "value": f"CAST({query.quote(name)} AS DOUBLE)",
        "table": query.quote(table),
        "original": _original(table),
    }
    seen = query.select(con, _RANGE.format(range_rows=_RANGE_ROWS, **names)).to_pylist()[0]
    if not seen["known"]:
        return None
    cuts = tuple(t for rule in rules if rule.value == column and (t := threshold(con, rule)))
    lo, width, bins = grid(
        [seen["lo"], *(c.value for c in cuts)], [seen["hi"], *(c.value for c in cuts)], whole
    )
    rows = query.select(con, _COUNTS.format(lo=lo, width=width, bins=bins, **names)).to_pylist()
    counts = {row["bin"]: (row["everyone"], row["kept"]) for row in rows}
    return Histogram(
        column=column,
        lo=lo,
        hi=lo + bins * width,
        everyone=tuple(counts.get(b, (0, 0))[0] for b in range(bins)),
        kept=tuple(counts.get(b, (0, 0))[1] for b in range(bins)),
        known=seen["known"],
        unknown=seen["rows"] - seen["known"],
        whole_numbers=whole,
        thresholds=cuts,
    )


def _original(table: str) -> str:
    """Which rows count: of captions the original ones, of samples those that were downloaded."""
    if table.startswith("scores_"):
        return "WHERE caption_id = uid"
    return "WHERE status = 'success'" if table == "samples" else ""


def grid(lows: list[float], highs: list[float], whole: bool) -> tuple[float, float, int]:
    """(begin, width, bins). Bins of whole numbers have their edges between two of them."""
    lo, hi = float(min(lows)), float(max(highs))
    if whole:
        lo, hi = math.floor(lo), math.ceil(hi)
        width = math.ceil((hi - lo + 1) / BINS)
        return lo - 0.5, float(width), math.ceil((hi - lo + 1) / width)
    if hi <= lo:
        return lo - 0.5, 1.0, 1
    return lo, (hi - lo) / BINS, BINS


def threshold(con: duckdb.DuckDBPyConnection, rule: Rule) -> Threshold | None:
    """Where a rule cuts its column; None for a predicate.

    Of a fraction: the highest value that it dropped.
    """
    if rule.drop_above is not None:
        return Threshold(rule.name, rule.drop_above, "above")
    if rule.drop_below is not None:
        return Threshold(rule.name, rule.drop_below, "below")
    if rule.keep_top is None:
        return None
    sql = "SELECT max(TRY_CAST(value AS DOUBLE)) AS cut FROM rules_failed WHERE rule = ?"
    cut = query.select(con, sql, [rule.name])["cut"][0].as_py()
    return None if cut is None else Threshold(rule.name, cut, "below")
