"""Captions: generated ones beside the original and the image, of pairs that nobody picked.

Twenty pairs of each captioner are drawn by hash(seed, uid) from all that it has captioned, and
counts say how often a scorer likes its captions better than the original.
Cost per million captions: 3 CPU seconds, hash joins that spill to disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate import query
from curate.captions import generated_tables
from curate.dataset import Dataset
from curate.reporting.examples import Example, described
from curate.reporting.text import printable

if TYPE_CHECKING:
    import duckdb

DRAWN = 20  # pairs of a captioner
_SAID = 8  # captions of one pair that are shown
_CAPTION = 240  # characters of one

_TOTALS = """
SELECT count(*) AS pairs, coalesce(CAST(sum(n) AS BIGINT), 0) AS captions
FROM (SELECT uid, count(*) AS n FROM {table} WHERE caption IS NOT NULL GROUP BY uid)
"""
_COMPARED = """
SELECT count(*) AS both, count(*) FILTER (WHERE g.clip_score > o.clip_score) AS higher
FROM {table} t JOIN {scores} g ON g.uid = t.uid AND g.caption_id = t.caption_id
  JOIN {scores} o ON o.uid = t.uid AND o.caption_id = t.uid
WHERE t.caption IS NOT NULL AND isfinite(g.clip_score) AND isfinite(o.clip_score)
"""
_PAIRS = """
SELECT uid FROM (SELECT DISTINCT uid FROM {table} WHERE caption IS NOT NULL)
ORDER BY {draw}, uid LIMIT {count:d}
"""
_TEXTS = """
SELECT t.uid, t.caption_id, t.caption FROM {table} t
WHERE t.caption IS NOT NULL AND t.uid IN (SELECT unnest(?::VARCHAR[]))
ORDER BY t.uid, t.caption_id
"""
_SCORES = """
SELECT caption_id, clip_score FROM {scores}
WHERE uid IN (SELECT unnest(?::VARCHAR[])) AND isfinite(clip_score)
"""


@dataclass(frozen=True)
class Captioned:
    """A pair with what was said of its image: (caption, its score or ""). note: of the original."""

    pair: Example
    generated: tuple[tuple[str, str], ...]
    more: int  # captions that are not shown


@dataclass(frozen=True)
class Captions:
    """What a captioner has said."""

    name: str
    pairs: int  # with a caption
    captions: int
    scorer: str | None  # whose clip_score compares captions; None: there is none
    both: int  # captions that have a score, as their pair's original has
    higher: int  # of these, above the original's
    drawn: tuple[Captioned, ...]


def captions(
    con: duckdb.DuckDBPyConnection, data: Dataset, count: int = DRAWN, seed: int = 0
) -> list[Captions]:
    """One of each captions_<name> of a captioner.

    con: of `query.connect`. count: pairs that are drawn of each.
    """
    tables = [t for t in generated_tables(data) if t in query.views(data)]
    return [_of_captioner(con, data, table, count, seed) for table in tables]


def _of_captioner(
    con: duckdb.DuckDBPyConnection, data: Dataset, table: str, count: int, seed: int
) -> Captions:
    name, scorer = table.removeprefix("captions_"), _scorer(con, data, table)
    names = {"table": query.quote(table), "scores": query.quote(scorer or "")}
    totals = query.select(con, _TOTALS.format(**names)).to_pylist()[0]
    compared = {"both": 0, "higher": 0}
    if scorer:
        compared = query.select(con, _COMPARED.format(**names)).to_pylist()[0]
    sql = _PAIRS.format(draw=query.draw_sql(seed), count=count, **names)
    uids = query.select(con, sql)["uid"].to_pylist()
    texts = query.select(con, _TEXTS.format(**names), [uids]).to_pylist()
    scores: dict[str, str] = {}
    if scorer:
        rows = query.select(con, _SCORES.format(**names), [uids]).to_pylist()
        scores = {row["caption_id"]: f"{row['clip_score']:.3f}" for row in rows}
    drawn = _beside(con, data, uids, texts, scores)
    said_by = scorer.removeprefix("scores_") if scorer else None
    return Captions(name, **totals, scorer=said_by, **compared, drawn=drawn)


def _scorer(con: duckdb.DuckDBPyConnection, data: Dataset, table: str) -> str | None:
    """The scores that compare captions: those of the captioner's own, else of originals alone."""
    scorers = [t for t in query.views(data) if t.startswith("scores_")]
    able = [t for t, cs in query.columns_of(con, scorers).items() if "clip_score" in dict(cs)]
    own = [t for t in able if f"{t}@{table.removeprefix('captions_')}" in data.tables()]
    return next(iter(own + able), None)


def _beside(
    con: duckdb.DuckDBPyConnection,
    data: Dataset,
    uids: Sequence[str],
    texts: Sequence[dict[str, Any]],
    scores: dict[str, str],
) -> tuple[Captioned, ...]:
    """The pairs in the order of `uids`, each with its captions."""
    pairs = [Example(uid, scores.get(uid, "")) for uid in uids]
    picture = described(con, data, pairs)
    said: dict[str, list[tuple[str, str]]] = {uid: [] for uid in uids}
    for row in texts:
        text = printable(row["caption"], _CAPTION)
        said[row["uid"]].append((text, scores.get(row["caption_id"], "")))
    return tuple(
        Captioned(picture[p], tuple(said[p.uid][:_SAID]), max(0, len(said[p.uid]) - _SAID))
        for p in pairs
    )
