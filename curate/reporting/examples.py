"""Examples: a few pairs with their pictures, for each rule and each group of duplicates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curate import query
from curate.dataset import Dataset
from curate.reporting.copies import removed_sql, tables_of
from curate.reporting.histograms import threshold
from curate.reporting.text import home, measured, number, printable, rule_of
from curate.shards import read_bytes
from models.decode import decode, over_white
from schemas.configs import Rule

if TYPE_CHECKING:
    import duckdb

THUMBNAIL = 96  # longer side, pixels
_QUALITY = 80  # JPEG
_CAPTION = 240  # characters of a caption, and of a URL
_COPIES = 6  # shown of one group of duplicates

# uid is a hash: its middle is a fair draw, the same at every run; its beginning is what breaks ties
_DRAW = "substr({0}.uid, 9), {0}.uid"


@dataclass(frozen=True)
class Example:
    """A pair as people see it. note: the value that a rule saw, or the distance to the kept one."""

    uid: str
    note: str = ""
    url: str = ""
    caption: str | None = None
    thumbnail: str | None = None  # data: URI of a JPEG, at most 96 pixels a side


@dataclass(frozen=True)
class RuleExamples:
    """What a rule dropped, and beside it what it only just let pass."""

    name: str
    rule: Rule | None  # None where the dataset no longer says
    failed: int
    unknown: int  # of the failed: the score was missing
    dropped: list[Example]
    kept: list[Example]


@dataclass(frozen=True)
class Group:
    """A pair that stays, and copies of it that went."""

    kept: Example
    dropped: list[Example]
    size: int  # how many copies went


def rule_examples(
    con: duckdb.DuckDBPyConnection, data: Dataset, rules: Sequence[Rule], count: int = 8
) -> list[RuleExamples]:
    """For every rule that failed a pair: a fair draw of the dropped, and what it only just kept.

    con: of `query.connect`. count: pairs of either side.
    """
    if not {"rules_failed", "decisions_quality"} <= set(data.tables()):
        return []
    sql = "SELECT rule, count(*) AS n FROM rules_failed GROUP BY rule ORDER BY n DESC, rule"
    totals = {row["rule"]: row["n"] for row in query.select(con, sql).to_pylist()}
    known = {rule.name: rule for rule in rules}
    names = [n for n in known if n in totals or f"unknown {n}" in totals]
    names += [n for n in dict.fromkeys(map(rule_of, totals)) if n not in known]
    found = [_of_rule(con, data, name, known.get(name), count) for name in names]
    picture = described(con, data, [e for r in found for e in (*r.dropped, *r.kept)])
    return [
        replace(
            r,
            failed=totals.get(r.name, 0) + totals.get(f"unknown {r.name}", 0),
            unknown=totals.get(f"unknown {r.name}", 0),
            dropped=[picture[e] for e in r.dropped],
            kept=[picture[e] for e in r.kept],
        )
        for r in found
    ]


def _of_rule(
    con: duckdb.DuckDBPyConnection, data: Dataset, name: str, rule: Rule | None, count: int
) -> RuleExamples:
    order = _DRAW.format("f")
    sql = f"SELECT uid, value FROM rules_failed f WHERE rule = ? ORDER BY {order} LIMIT {count:d}"
    failed = query.select(con, sql, [name]).to_pylist()
    if rule is not None and rule.drop_if is None:
        failed.sort(key=_value)
    dropped = [Example(row["uid"], measured(row["value"]) or "") for row in failed]
    return RuleExamples(name, rule, 0, 0, dropped, _passing(con, data, rule, count))


def _value(row: dict[str, Any]) -> float:
    try:
        return float(row["value"])
    except (TypeError, ValueError):
        return 0.0


def _passing(
    con: duckdb.DuckDBPyConnection, data: Dataset, rule: Rule | None, count: int
) -> list[Example]:
    """Kept pairs: nearest to the threshold where there is one, else a fair draw."""
    cut = threshold(con, rule) if rule else None
    if rule is None or rule.value is None or cut is None:
        order = _DRAW.format("d")
        sql = f"SELECT uid FROM decisions_quality d WHERE keep ORDER BY {order} LIMIT {count:d}"
        return [Example(row["uid"]) for row in query.select(con, sql).to_pylist()]
    table, column = home(rule.value, query.views(data))
    original = "AND t.caption_id = t.uid" if table.startswith("scores_") else ""
    sql = f"""SELECT t.uid, CAST(t.{query.quote(column)} AS DOUBLE) AS value
        FROM {query.quote(table)} t JOIN decisions_quality d ON d.uid = t.uid
        WHERE d.keep {original} AND value IS NOT NULL
        ORDER BY abs(value - {cut.value!r}), t.uid LIMIT {count:d}"""
    rows = sorted(query.select(con, sql).to_pylist(), key=_value)
    return [Example(row["uid"], number(row["value"])) for row in rows]


_LARGEST = """
WITH groups AS (
    SELECT duplicate_of AS one, count(*) AS size FROM decisions_dedup
    WHERE duplicate_of IS NOT NULL GROUP BY 1 ORDER BY size DESC, one LIMIT {limit}),
  copies AS (SELECT * FROM ({removed}) JOIN groups USING (one))
FROM copies
QUALIFY row_number() OVER (PARTITION BY one ORDER BY distance NULLS LAST, other) <= {copies}
ORDER BY size DESC, one, distance NULLS LAST, other
"""


def duplicate_groups(con: duckdb.DuckDBPyConnection, data: Dataset, count: int = 8) -> list[Group]:
    """The pairs that stay for the most copies, with the nearest of those."""
    if not tables_of(data) or "decisions_dedup" not in data.tables():
        return []
    sql = _LARGEST.format(removed=removed_sql(data), copies=_COPIES, limit=count)
    return _groups(con, data, query.select(con, sql).to_pylist())


def _groups(
    con: duckdb.DuckDBPyConnection, data: Dataset, rows: list[dict[str, Any]]
) -> list[Group]:
    heads = list(dict.fromkeys(row["one"] for row in rows))
    copies = {
        head: [
            Example(r["other"], f"{r['kind']}, distance {number(r['distance'] or 0)}")
            for r in rows
            if r["one"] == head
        ]
        for head in heads
    }
    sizes = {row["one"]: row["size"] for row in rows}
    picture = described(
        con,
        data,
        [Example(h, "kept") for h in heads] + [e for some in copies.values() for e in some],
    )
    return [
        Group(picture[Example(h, "kept")], [picture[e] for e in copies[h]], sizes[h]) for h in heads
    ]


def described(
    con: duckdb.DuckDBPyConnection, data: Dataset, examples: Sequence[Example]
) -> dict[Example, Example]:
    """Each example with its URL, caption and picture: one query and a few byte ranges for all."""
    uids = sorted({e.uid for e in examples})
    sql = """SELECT u.uid, u.url, u.caption, s.shard, s."offset", s.size
        FROM urls u LEFT JOIN samples s ON s.uid = u.uid
        WHERE u.uid IN (SELECT unnest(?::VARCHAR[])) ORDER BY u.uid"""
    rows = query.select(con, sql, [uids])
    known: dict[str, Any] = {
        row["uid"]: {
            "url": printable(row["url"] or "", _CAPTION),
            "caption": None if row["caption"] is None else printable(row["caption"], _CAPTION),
            "thumbnail": thumbnail(encoded),
        }
        for row, encoded in zip(rows.to_pylist(), read_bytes(data, rows), strict=True)
    }
    return {e: replace(e, **known.get(e.uid, {})) for e in examples}


def thumbnail(encoded: bytes | None, side: int = THUMBNAIL) -> str | None:
    """A data: URI of the image as a small JPEG over white; None where nothing can be decoded."""
    import cv2

    if encoded is None:
        return None
    try:
        pixels = over_white(decode(encoded))
    except ValueError:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
