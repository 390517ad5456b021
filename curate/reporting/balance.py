"""Balance: what a selection does to concepts, languages, hosts, image sizes and caption lengths.

1. A view of the downloaded pairs with two flags: in the subset; in a blind draw of as many pairs.
2. DuckDB counts each value (a word, a host, a size) over all pairs and among the flagged ones.
3. Of labels the most frequent come into Python; of numbers one row per distinct value.
The distance between before and after is the total variation: half the sum of |difference| of two
distributions, 0 where they are equal, 1 where they share nothing. That of the blind draw says how
much of it is the size of the subset alone.
Cost per million pairs: 8 CPU seconds where captions are ASCII, 12 where none is (9 words each);
five joins, which spill; memory grows with the distinct words and hosts, to the connection's limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate import query
from curate.dataset import Dataset
from curate.reporting.histograms import Histogram, grid
from curate.reporting.text import number, printable
from models.phrases import STOP_WORDS
from models.vocabulary import MAX_TEXT, MAX_WORD, words

if TYPE_CHECKING:
    import duckdb

WORDS, MOVED, HOSTS, LANGUAGES = 20, 10, 15, 15  # labels that are shown
SIDES = ("before", "after")
COMMON = 10  # captions of the pool that a word needs to be missed
_LABEL = 253  # characters of a label: a host's longest name
_TAIL = 0.005  # of the pairs before, that the outermost bars hold at either end

_POOL = """
CREATE OR REPLACE TEMP VIEW balance_pool AS
SELECT u.uid, u.url, u.caption, s.original_width, s.original_height,
  k.uid IS NOT NULL AS kept, substr(u.uid, 9, 8) < '{share:08x}' AS drawn
FROM samples s JOIN urls u USING (uid) LEFT JOIN {subset} k USING (uid)
WHERE s.status = 'success'
"""
_COUNTED = """
count(*) AS before, count(*) FILTER (WHERE kept) AS after, count(*) FILTER (WHERE drawn) AS blind
"""
_COUNTS = "CREATE OR REPLACE TEMP TABLE balance_counts AS SELECT label, {counted} FROM ({rows}) "
# whole numbers as long as they are summed: the same figure whatever order threads come in
_DISTANCES = """
WITH total AS (SELECT CAST(sum(before) AS HUGEINT) AS n, CAST(sum(after) AS HUGEINT) AS m,
    CAST(sum(blind) AS HUGEINT) AS b FROM balance_counts)
SELECT count(*) AS labels, count(*) FILTER (WHERE after > 0) AS remaining,
  count(*) FILTER (WHERE before >= {common}) AS common,
  count(*) FILTER (WHERE before >= {common} AND after = 0) AS missed,
  CAST(sum(abs(before * m - after * n)) AS DOUBLE) / nullif(2.0 * any_value(n) * any_value(m), 0)
    AS moved,
  CAST(sum(abs(before * b - blind * n)) AS DOUBLE) / nullif(2.0 * any_value(n) * any_value(b), 0)
    AS by_chance
FROM balance_counts, total
"""
# as models/vocabulary.words has them, which folds what is not ASCII
_WORDS = f"""
SELECT label, kept, drawn FROM (
  SELECT kept, drawn, unnest(list_distinct(CASE WHEN strlen(caption) = length(caption)
    THEN regexp_extract_all(lower(left(caption, {MAX_TEXT})), '[a-z0-9]+')
    ELSE caption_words(caption) END)) AS label
  FROM balance_pool WHERE caption IS NOT NULL)
WHERE length(label) <= {MAX_WORD} AND (length(label) > 1 OR label > chr(127))
  AND NOT regexp_full_match(label, '\\pN+') AND label NOT IN ({{stop}})
"""
_HOSTS = r"""
SELECT kept, drawn, coalesce(nullif(lower(regexp_extract(
  url, '^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/?#:]*)', 1)), ''), 'no host'
) AS label FROM balance_pool
"""
_LANGUAGES = """
SELECT kept, drawn, coalesce(t.language, 'unknown') AS label
FROM balance_pool LEFT JOIN (SELECT uid, language FROM {table} WHERE caption_id = uid) t USING (uid)
"""
_SIDE = "least(original_width, original_height)"
# runs between white space, as text_stats counts
_LENGTH = r"coalesce(len(regexp_extract_all(caption, '[^\s\v\x1c-\x1f\x{85}\p{Z}]+')), 0)"


@dataclass(frozen=True)
class Share:
    """The share of the pairs that have a label, of the pool and of the subset."""

    label: str
    before: float
    after: float


@dataclass(frozen=True)
class Bars:
    """Labels with their shares, under a heading each group."""

    label: str
    groups: tuple[tuple[str, tuple[Share, ...]], ...]


@dataclass(frozen=True)
class Plot:
    """A picture and the sentence under it. Of a histogram, `kept` is what the subset has."""

    title: str
    drawing: Bars | Histogram
    said: str


@dataclass(frozen=True)
class Balance:
    """Before and after of one subset."""

    subset: str
    before: int  # downloaded pairs
    after: int  # of them, in the subset
    plots: tuple[Plot, ...]


def balance(
    con: duckdb.DuckDBPyConnection, data: Dataset, subset: str | None = None
) -> Balance | None:
    """The plots of a subset; None where no pair is downloaded or selected.

    con: of `query.connect`. subset: its name; else the one that `decisions_select` was made with,
    else the first. Raises ValueError for a name that no subset has.
    """
    name = _chosen(data, subset)
    if name is None or "samples" not in query.views(data):
        return None
    table = query.quote(f"subset_{name}")
    query.run(con, _POOL.format(subset=table, share=0))
    sql = f"SELECT {_COUNTED} FROM balance_pool"
    pool = query.select(con, sql).to_pylist()[0]
    if not pool["after"]:
        return None
    share = min(2**32 - 1, 2**32 * pool["after"] // pool["before"])
    query.run(con, _POOL.format(subset=table, share=share))
    size = (pool["before"], pool["after"])
    plots = [*_concepts(con, size), *_languages(con, data, size), _hosts(con, size)]
    plots += _numbers(con, "Image sizes", "shorter side of the original in pixels", _SIDE)
    plots += _numbers(con, "Caption lengths", "words between blanks", _LENGTH)
    query.run(con, "DROP TABLE balance_counts")
    return Balance(name, *size, tuple(plots))


def _chosen(data: Dataset, subset: str | None) -> str | None:
    have = [t.removeprefix("subset_") for t in query.views(data) if t.startswith("subset_")]
    if subset is not None and subset not in have:
        raise ValueError(
            f"subset: there is no subset_{subset} in {data.root}; there are "
            f"{', '.join(have) or 'none: compress first'}"
        )
    selected = data.config_of("decisions_select").get("name")
    return subset or (selected if selected in have else next(iter(have), None))


def _count(con: duckdb.DuckDBPyConnection, rows: str) -> dict[str, Any]:
    """Fill balance_counts: label, before, after, blind. Returns what is to be said of all."""
    query.run(con, _COUNTS.format(counted=_COUNTED, rows=rows) + "GROUP BY label")
    return dict(query.select(con, _DISTANCES.format(common=COMMON)).to_pylist()[0])


def _top(
    con: duckdb.DuckDBPyConnection, order: str, count: int, where: str = ""
) -> list[dict[str, Any]]:
    sql = f"SELECT label, before, after FROM balance_counts {where} ORDER BY {order}, label"
    return list(query.select(con, f"{sql} LIMIT {count:d}").to_pylist())


def _shares(rows: Sequence[dict[str, Any]], size: tuple[int, int]) -> tuple[Share, ...]:
    return tuple(
        Share(printable(r["label"], _LABEL), r["before"] / size[0], r["after"] / size[1])
        for r in rows
    )


def _concepts(con: duckdb.DuckDBPyConnection, size: tuple[int, int]) -> list[Plot]:
    con.create_function(
        "caption_words", _listed, [con.dtype("VARCHAR")], con.list_type(con.dtype("VARCHAR"))
    )
    try:
        stop = ", ".join(map(query.literal, sorted(STOP_WORDS)))
        found = _count(con, _WORDS.format(stop=stop))
    finally:
        con.remove_function("caption_words")
    if not found["labels"]:
        return []
    often = _shares(_top(con, "before DESC", WORDS), size)
    said = f"Share of pairs whose caption has the word. {_distance(found)}"
    plots = [Plot("Concepts: most frequent words", Bars("frequent words", (("", often),)), said)]
    if groups := _moved(con, size):
        gone = f"Of {found['common']:,} words that {COMMON} or more captions have,"
        gone += f" {found['missed']:,} are in none that is left."
        plots.append(Plot("Concepts: lost and gained", Bars("words that moved", groups), gone))
    return plots


def _moved(
    con: duckdb.DuckDBPyConnection, size: tuple[int, int]
) -> tuple[tuple[str, tuple[Share, ...]], ...]:
    """The labels whose share has fallen most and risen most, in percentage points."""
    gain = f"(CAST(after AS HUGEINT) * {size[0]} - CAST(before AS HUGEINT) * {size[1]})"
    lost = _top(con, gain, MOVED, f"WHERE {gain} < 0")
    gained = _top(con, f"{gain} DESC", MOVED, f"WHERE {gain} > 0")
    groups = (("lost most", _shares(lost, size)), ("gained most", _shares(gained, size)))
    return tuple(group for group in groups if group[1])


def _listed(caption: str) -> list[str]:
    return list(words(caption))


def _languages(con: duckdb.DuckDBPyConnection, data: Dataset, size: tuple[int, int]) -> list[Plot]:
    scorers = [t for t in query.views(data) if t.startswith("scores_")]
    known = [t for t, cs in query.columns_of(con, scorers).items() if "language" in dict(cs)]
    if not known:
        return []
    found = _count(con, _LANGUAGES.format(table=query.quote(known[0])))
    drawing = _with_others(con, size, "languages", found["labels"], LANGUAGES)
    said = f"{_count_of(found, 'language')} {_distance(found)}"
    return [Plot("Languages", drawing, said)]


def _hosts(con: duckdb.DuckDBPyConnection, size: tuple[int, int]) -> Plot:
    found = _count(con, _HOSTS)
    drawing = _with_others(con, size, "hosts", found["labels"], HOSTS)
    return Plot("Hosts", drawing, f"{_count_of(found, 'host')} {_distance(found)}")


def _with_others(
    con: duckdb.DuckDBPyConnection, size: tuple[int, int], label: str, labels: int, count: int
) -> Bars:
    """The most frequent labels, and all others as one. Every pair has one label."""
    top = _top(con, "before DESC", count)
    if others := labels - len(top):
        before, after = (n - sum(r[s] for r in top) for n, s in zip(size, SIDES, strict=True))
        top.append({"label": f"other ({others:,})", "before": before, "after": after})
    return Bars(label, (("", _shares(top, size)),))


def _count_of(found: dict[str, Any], what: str) -> str:
    plural = "s" * (found["labels"] != 1)
    return f"{found['labels']:,} {what}{plural} before, {found['remaining']:,} after."


def _distance(found: dict[str, Any]) -> str:
    if found["moved"] is None:
        return "Nothing is left."
    blind = found["by_chance"]
    chance = "" if blind is None else f" (a blind draw of as many pairs: {blind:.3f})"
    return f"Total variation distance {found['moved']:.3f}{chance}."


def _numbers(con: duckdb.DuckDBPyConnection, title: str, unit: str, value: str) -> list[Plot]:
    """The histogram of a whole number; [] where it is known of no pair before or after."""
    sql = f"SELECT {value} AS value, {_COUNTED} FROM balance_pool GROUP BY value ORDER BY value"
    rows = [r for r in query.select(con, sql).to_pylist() if r["value"] is not None]
    known = [sum(r[side] for r in rows) for side in SIDES]
    if not all(known):
        return []
    low, high = (_quantile(rows, "before", q) for q in (_TAIL, 1 - _TAIL))
    lo, width, bins = grid([low], [high], whole=True)
    before, after, blind = _binned(rows, lo, width, bins)
    counts = Histogram(title.lower(), lo, lo + bins * width, before, after, known[0], 0, True)
    medians = [number(_quantile(rows, side, 0.5)) for side in SIDES]
    found = {"moved": _apart(before, after), "by_chance": _apart(before, blind)}
    said = f"{unit.capitalize()}: median {medians[0]} before, {medians[1]} after. "
    return [Plot(title, counts, said + _distance(found))]


def _quantile(rows: Sequence[dict[str, Any]], side: str, share: float) -> int:
    """The least value that so many pairs do not exceed. rows: sorted by value."""
    wanted, seen = share * sum(r[side] for r in rows), 0
    for row in rows:
        seen += row[side]
        if seen >= wanted and seen:
            return int(row["value"])
    return int(rows[-1]["value"])


def _binned(
    rows: Sequence[dict[str, Any]], lo: float, width: float, bins: int
) -> list[tuple[int, ...]]:
    counts = {side: [0] * bins for side in (*SIDES, "blind")}
    for row in rows:
        at = min(bins - 1, max(0, math.floor((row["value"] - lo) / width)))
        for side, some in counts.items():
            some[at] += row[side]
    return [tuple(some) for some in counts.values()]


def _apart(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Total variation distance of two rows of counts; None where one of them has none."""
    n, m = sum(one), sum(other)
    if not n or not m:
        return None
    return sum(abs(a * m - b * n) for a, b in zip(one, other, strict=True)) / (2 * n * m)
