"""Funnel: decisions -> counts per stage.

For each stage, in = kept + dropped + failed. Dropped: a rule, the search for duplicates or a
selector said no. Failed: nobody could say: not fetched, a score unknown, not decided yet.
Cost per million pairs: 0.8 CPU seconds (download and quality), hash joins that spill to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate import query
from curate.dataset import Dataset
from curate.reporting.text import in_code, printable

STAGES = ("download", "quality", "dedup", "select")
_REASONS = 12  # of one stage and outcome that are named; the web invents error messages without end
_WIDTH = 90  # characters of a reason

# every pair once: where it stopped ('' where it did not), whether that was a failure, and why
_STOPPED = """
SELECT stage, failed, reason, CAST(sum(n) AS BIGINT) AS n FROM (
  SELECT stage, failed, n,
    CASE WHEN row_number() OVER (PARTITION BY stage, failed ORDER BY n DESC, reason) > {reasons}
      THEN 'other reasons' ELSE reason END AS reason
  FROM (
    SELECT {stage} AS stage, {failed} AS failed, {reason} AS reason, count(*) AS n
    FROM urls u {joins} GROUP BY ALL)
) GROUP BY ALL ORDER BY n DESC, reason
"""
_ERROR = r"""s.status || coalesce(
  ': ' || left(regexp_replace(s.error_message, 'https?://\S+', '(url)', 'g'), 200), '')"""


@dataclass(frozen=True)
class FunnelRow:
    """One stage: how many pairs came in, how many went on, and why the others did not."""

    stage: str
    input: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def dropped_count(self) -> int:
        return sum(self.dropped.values())

    @property
    def failed_count(self) -> int:
        return sum(self.failed.values())


def funnel(data: Dataset) -> list[FunnelRow]:
    """One row per stage that the dataset has been through, in order.

    Raises ValueError where nothing was ingested.
    """
    if "urls" not in data.tables():
        raise ValueError(
            f"{data.root} has no table 'urls'; it has {', '.join(data.tables()) or 'none'}: "
            "ingest a list first"
        )
    con = query.connect(data)
    try:
        stopped = query.select(con, _stopped_sql(query.views(data))).to_pylist()
    finally:
        con.close()
    rows, coming = [], data.rows("urls")
    for stage in ("download", *_deciding(query.views(data))):
        mine = [s for s in stopped if s["stage"] == stage]
        dropped = _counts(s for s in mine if not s["failed"])
        failed = _counts(s for s in mine if s["failed"])
        kept = coming - sum(dropped.values()) - sum(failed.values())
        rows.append(FunnelRow(stage, coming, kept, dropped, failed))
        coming = kept
    return rows


def _deciding(tables: Sequence[str]) -> list[str]:
    return [stage for stage in STAGES[1:] if f"decisions_{stage}" in tables]


def _counts(stopped: Iterable[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in stopped:
        reason = printable(entry["reason"], _WIDTH)
        counts[reason] = counts.get(reason, 0) + entry["n"]
    return counts


def _stopped_sql(tables: Sequence[str]) -> str:
    cases: list[tuple[str, str, str, str]] = []  # when, stage, failed, reason
    joins = ""
    if "samples" in tables:
        joins += " LEFT JOIN samples s ON s.uid = u.uid"
        cases.append(("s.uid IS NULL", "'download'", "true", "'not downloaded yet'"))
        cases.append(("s.status <> 'success'", "'download'", "true", _ERROR))
    else:
        cases.append(("true", "'download'", "true", "'not downloaded yet'"))
    for stage in _deciding(tables):
        table = f"decisions_{stage}"
        joins += f" LEFT JOIN {table} ON {table}.uid = u.uid"
        reason = f"coalesce({table}.reason, 'no reason given')"
        waits = f"'{stage} not decided yet'"
        unknown = f"starts_with({reason}, 'unknown ')"
        cases.append((f"{table}.uid IS NULL", f"'{stage}'", "true", waits))
        cases.append((f"NOT {table}.keep", f"'{stage}'", unknown, reason))
    columns = [
        "CASE "
        + " ".join(f"WHEN {case[0]} THEN {case[i]}" for case in cases)
        + f" ELSE {otherwise} END"
        for i, otherwise in ((1, "''"), (2, "false"), (3, "''"))
    ]
    return _STOPPED.format(
        stage=columns[0], failed=columns[1], reason=columns[2], joins=joins, reasons=_REASONS
    )


def funnel_table(rows: Sequence[FunnelRow]) -> str:
    """Aligned text for a terminal: a line per stage, under it a line per reason."""
    lines = [f"{'stage':<10}{'in':>14}{'kept':>14}{'dropped':>14}{'failed':>14}"]
    for row in rows:
        lines.append(
            f"{row.stage:<10}{row.input:>14,}{row.kept:>14,}{row.dropped_count:>14,}{row.failed_count:>14,}"
        )
        lines += [
            f"{'':<38}{count:>14,}{'':<14}  {reason}" for reason, count in row.dropped.items()
        ]
        lines += [f"{'':<52}{count:>14,}  {reason}" for reason, count in row.failed.items()]
    return "\n".join(lines)


def funnel_markdown(rows: Sequence[FunnelRow]) -> str:
    """A Markdown table; reasons stand in code spans, where Markdown and HTML mean nothing."""
    lines = ["| stage | in | kept | dropped | failed | reasons |", "|---|--:|--:|--:|--:|---|"]
    for row in rows:
        reasons = ", ".join(
            f"{in_code(reason)} {count:,}"
            for reason, count in (*row.dropped.items(), *row.failed.items())
        )
        lines.append(
            f"| {row.stage} | {row.input:,} | {row.kept:,} "
            f"| {row.dropped_count:,} | {row.failed_count:,} | {reasons} |"
        )
    return "\n".join(lines)
