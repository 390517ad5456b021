"""Evidence: what rules look at, of every downloaded pair, in one narrow temporary table of DuckDB.

    part, uid, x0, x1 ...    one column for each column or predicate that a rule speaks of

Where a rule blends columns, the smallest and the largest value of each over the whole pool (its
scale) are found once and are part of what decides.

The parts of all tables hold the same pairs, so they are joined a chunk of parts at a time: a join
never holds more than CHUNK_ROWS pairs, and of each file only the columns that are spoken of are
read. Who decides, asks what if, or tunes a threshold reads this table and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curate.dataset import Dataset
from curate.query import (
    columns_of,
    connect,
    literal,
    lock,
    number_sql,
    quote,
    run,
    select,
    some_parts_sql,
    views,
)
from schemas.configs import Rule

Scales = Mapping[str, tuple[float, float]]  # by column of `pairs`: smallest and largest value
Columns = dict[str, list[tuple[str, str]]]  # of each table: name and SQL type

CHUNK_ROWS = 1_000_000  # pairs that are joined at once, about: as many as a compacted file holds
_KEYS = {"samples": ("uid", "status")}


@dataclass(frozen=True)
class Evidence:
    """The table, and which of its columns holds what a rule looks at."""

    con: Any
    columns: Mapping[str, str]  # SQL over a row of `pairs` -> column
    rules: tuple[str, ...]  # their names, for what goes wrong
    scales: Scales  # of the columns that are blended

    def column(self, rule: Rule) -> str:
        """SQL of what this rule looks at: a column, or a blend of some."""
        if rule.blend is None:
            return self.columns[looked_at(rule)[0]]
        return " + ".join(
            f"{number_literal(weight)} * {self.scaled(column)}"
            for column, weight in sorted(rule.blend.items())
        )

    def scaled(self, column: str) -> str:
        """SQL of a column's value from 0 to 1, by its scale."""
        value, (least, most) = number_sql(self.columns[quote(column)]), self.scales[column]
        if not least < most:  # known where the value is
            return f"(({value}) * 0)"
        by = f"({number_literal(most)} - {number_literal(least)})"
        return f"((({value}) - {number_literal(least)}) / {by})"

    def ask(self, sql: str) -> pa.Table:
        """Rows of a SELECT over `evidence`. Raises ValueError that names the rules."""
        with _said_of(self.rules):
            return select(self.con, sql)

    def one(self, sql: str) -> Any:
        """The only value of a SELECT; None where there is no row."""
        rows = self.ask(sql)
        return rows[0][0].as_py() if rows.num_rows else None


def looked_at(rule: Rule) -> list[str]:
    """SQL over a row of `pairs`: a rule's values as they are stored, or whether its predicate
    holds.
    """
    if rule.drop_if is None:
        return [quote(column) for column in rule.blend or [str(rule.value)]]
    # TRY: a value that an expression cannot take costs its pair, which is unknown, not the run
    return [f"TRY(CAST(({rule.drop_if}\n) AS BOOLEAN))"]


def number_literal(value: float) -> str:
    """SQL of exactly this number, infinities included."""
    return f"{literal(repr(float(value)))}::DOUBLE"


def tables_of(data: Dataset, rules: Sequence[Rule]) -> list[str]:
    """samples, and the tables that the rules speak of: urls, scores."""
    text = _text(rules)
    known = [t for t in views(data) if t == "urls" or t.startswith("scores_")]
    return ["samples", *(t for t in known if f"{t}__" in text)]


def columns_read(data: Dataset, rules: Sequence[Rule]) -> Columns:
    """Name and type of the columns that rules can speak of, over all parts."""
    tables = tables_of(data, rules)
    con = connect(data, only=[t for t in tables if data.parts(t)])
    try:
        return columns_of(con, tables)
    finally:
        con.close()


def parts_to_judge(data: Dataset) -> list[int]:
    """The parts that have been downloaded."""
    return sorted(set(data.parts("urls")) & set(data.parts("samples")))


def chunks(data: Dataset, parts: Sequence[int]) -> list[list[int]]:
    """Runs of parts that hold about CHUNK_ROWS pairs each."""
    found: list[list[int]] = []
    rows = CHUNK_ROWS
    for part in parts:
        if rows >= CHUNK_ROWS:
            found.append([])
            rows = 0
        found[-1].append(part)
        rows += data.parts("samples")[part].rows
    return found


@contextmanager
def gathered(
    data: Dataset,
    rules: Sequence[Rule],
    columns: Columns,
    parts: Sequence[int],
    threads: int | None = None,
    scales: Scales | None = None,
) -> Iterator[Evidence]:
    """Evidence of all downloaded pairs of these parts, for the length of the block.

    columns: of `columns_read`. scales: of the pool, where these parts are not all of it; None: of
    these parts. Raises ValueError for a rule over a column that is not there.
    """
    con = connect(data, threads=threads, only=())
    try:
        lock(con, data)
        spoken = dict.fromkeys(sql for rule in rules for sql in looked_at(rule))
        names = {sql: f"x{i}" for i, sql in enumerate(spoken)}
        evidence = Evidence(con, names, tuple(r.name for r in rules), scales or {})
        chosen = ", ".join(["part", "uid", *(f"{sql} AS {name}" for sql, name in names.items())])
        with _said_of(evidence.rules):
            nothing = _joined_sql(con, data, columns, columns, [])
            run(con, f"CREATE TEMP TABLE evidence AS SELECT {chosen} FROM ({nothing})")
            spoken_of = _spoken_of(columns, rules)
            for chunk in chunks(data, parts):
                rows = _joined_sql(con, data, columns, spoken_of, chunk)
                run(con, f"INSERT INTO evidence SELECT {chosen} FROM ({rows})")
        yield replace(evidence, scales=_scales(evidence, rules)) if scales is None else evidence
    finally:
        con.close()


def _scales(evidence: Evidence, rules: Sequence[Rule]) -> dict[str, tuple[float, float]]:
    """Smallest and largest finite value of every column that is blended; 0 and 0 of none."""
    found: dict[str, tuple[float, float]] = {}
    for column in sorted({column for rule in rules for column in rule.blend or ()}):
        value = number_sql(evidence.columns[quote(column)])
        known = f"FROM evidence WHERE isfinite({value})"
        ends = [evidence.one(f"SELECT {end}({value}) {known}") for end in ("min", "max")]
        found[column] = (float(ends[0] or 0), float(ends[1] or 0))
    return found


def _spoken_of(columns: Columns, rules: Sequence[Rule]) -> Columns:
    """The columns that have to be read, keys aside; a table of which none is needed is left out."""
    text = _text(rules).lower()
    wanted = {
        table: [(c, kind) for c, kind in all_of if f"{table}__{c}".lower() in text]
        for table, all_of in columns.items()
    }
    return {t: some for t, some in wanted.items() if some or t == "samples"}


def _joined_sql(
    con: Any, data: Dataset, columns: Columns, wanted: Columns, parts: Sequence[int]
) -> str:
    """One row per downloaded pair: part, uid, and columns named <table>__<column> as in `pairs`.

    A table of scores holds those of original captions; those of generated ones are in <table>@x.
    """
    chosen, joins = ["samples.part AS part", "samples.uid AS uid"], []
    for table, some in wanted.items():
        keys = [(c, kind) for c, kind in columns[table] if c in _KEYS.get(table, ("uid",))]
        read = keys + [c for c in some if c not in keys]
        body = some_parts_sql(con, data, table, read, parts, numbered=table == "samples")
        chosen += [
            f"{quote(table)}.{quote(c)} AS {quote(f'{table}__{c}')}"
            for c, _ in some
            if c not in ("uid", "caption_id")
        ]
        joins.append((table, f"({body}) AS {quote(table)}"))
    sources = dict(joins)
    first = sources.pop("samples")
    others = " ".join(
        f"LEFT JOIN {body} ON {quote(table)}.uid = samples.uid" for table, body in sources.items()
    )
    return f"SELECT {', '.join(chosen)} FROM {first} {others} WHERE samples.status = 'success'"


def _text(rules: Sequence[Rule]) -> str:
    return " ".join(" ".join([r.drop_if or "", r.value or "", *(r.blend or ())]) for r in rules)


@contextmanager
def _said_of(rules: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the rules {', '.join(rules)}: {error}") from error
