"""Evidence: what rules look at, of every downloaded pair, in one narrow temporary table of DuckDB.

    part, uid, x0, x1 ...    one column for each column or predicate that a rule speaks of

The parts of all tables hold the same pairs, so they are joined a chunk of parts at a time: a join
never holds more than CHUNK_ROWS pairs, and of each file only the columns that are spoken of are
read. Who decides, asks what if, or tunes a threshold reads this table and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.dataset import Dataset
from curate.query import columns_of, connect, lock, quote, run, select, some_parts_sql, views
from schemas.configs import Rule

Columns = dict[str, list[tuple[str, str]]]  # of each table: name and SQL type

CHUNK_ROWS = 1_000_000  # pairs that are joined at once, about: as many as a compacted file holds
_KEYS = {"samples": ("uid", "status")}


@dataclass(frozen=True)
class Evidence:
    """The table, and which of its columns holds what a rule looks at."""

    con: Any
    columns: Mapping[str, str]  # SQL over a row of `pairs` -> column
    rules: tuple[str, ...]  # their names, for what goes wrong

    def column(self, rule: Rule) -> str:
        """The column with what this rule looks at."""
        return self.columns[looked_at(rule)]

    def ask(self, sql: str) -> pa.Table:
        """Rows of a SELECT over `evidence`. Raises ValueError that names the rules."""
        with _said_of(self.rules):
            return select(self.con, sql)

    def one(self, sql: str) -> Any:
        """The only value of a SELECT; None where there is no row."""
        rows = self.ask(sql)
        return rows[0][0].as_py() if rows.num_rows else None


def looked_at(rule: Rule) -> str:
    """SQL over a row of `pairs`: a rule's value as it is stored, or whether its predicate holds."""
    if rule.drop_if is None:
        return quote(str(rule.value))
    # TRY: a value that an expression cannot take costs its pair, which is unknown, not the run
    return f"TRY(CAST(({rule.drop_if}\n) AS BOOLEAN))"


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
) -> Iterator[Evidence]:
    """Evidence of all downloaded pairs of these parts, for the length of the block.

    columns: of `columns_read`. Raises ValueError for a rule over a column that is not there.
    """
    con = connect(data, threads=threads, only=())
    try:
        lock(con, data)
        names = {sql: f"x{i}" for i, sql in enumerate(dict.fromkeys(map(looked_at, rules)))}
        evidence = Evidence(con, names, tuple(r.name for r in rules))
        chosen = ", ".join(["part", "uid", *(f"{sql} AS {name}" for sql, name in names.items())])
        with _said_of(evidence.rules):
            nothing = _joined_sql(con, data, columns, columns, [])
            run(con, f"CREATE TEMP TABLE evidence AS SELECT {chosen} FROM ({nothing})")
            spoken_of = _spoken_of(columns, rules)
            for chunk in chunks(data, parts):
                rows = _joined_sql(con, data, columns, spoken_of, chunk)
                run(con, f"INSERT INTO evidence SELECT {chosen} FROM ({rows})")
        yield evidence
    finally:
        con.close()


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
    return " ".join(f"{r.value or ''} {r.drop_if or ''}" for r in rules)


@contextmanager
def _said_of(rules: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the rules {', '.join(rules)}: {error}") from error
