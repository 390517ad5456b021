"""Query: every table of a version as a DuckDB view, and `pairs`, one row per pair. The only file
that imports duckdb.

Two kinds of connection: `connect` for our own stages, and `query` for a user's SQL, which can read
the dataset and nothing else: SELECT-type statements only, file and network access off outside
the dataset, configuration locked.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.storage import is_local
from curate.versions import Part
from schemas.tables import PAIRS_LEAD

if TYPE_CHECKING:
    import duckdb

_PART_NUMBER = "CAST(split_part(parse_filename(filename), '.', 1) AS INTEGER)"

_FIRST_FAILING = """
SELECT u.uid,
  CASE {cases} ELSE true END AS keep,
  CASE {reasons} ELSE NULL END AS reason
FROM urls u {joins}
"""


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def connect(
    data: Dataset,
    memory_limit: str = "2GB",
    threads: int | None = None,
    only: Sequence[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A connection with the views of the dataset's version; joins spill to a scratch folder past
    `memory_limit`.

    only: views of these tables alone: making one opens every file of its table.
    """
    import duckdb

    con = duckdb.connect(
        ":memory:", config={"memory_limit": memory_limit, "preserve_insertion_order": "true"}
    )
    con.execute(f"SET temp_directory = {literal(_scratch())}")
    if threads:
        con.execute(f"SET threads = {threads}")
    if not is_local(data.fs):
        con.register_filesystem(data.fs)
    for table in views(data) if only is None else only:
        con.execute(view_sql(data, table))
    if only is None and "urls" in data.tables():
        con.execute(f"CREATE VIEW decisions AS {decisions_sql(views(data))}")
        con.execute(f"CREATE VIEW pairs AS {pairs_sql(con, views(data))}")
    return con


def _scratch() -> str:
    """A folder that DuckDB makes when it first spills, and removes when the connection ends."""
    return f"{tempfile.gettempdir()}/curate-duckdb-{uuid.uuid4().hex}"


def columns_of(
    con: duckdb.DuckDBPyConnection, tables: Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    """Name and type of the columns of each table, over all of its parts; no lists, no bytes."""
    return {
        table: [(c, kind) for c, kind in _columns(con, table) if not kind.endswith(("]", "BLOB"))]
        for table in tables
    }


def view_sql(data: Dataset, table: str) -> str:
    """SQL that makes the view of a table.

    Tables `scores_x@y` (the scores of captions_y) are folded into `scores_x`.
    """
    members = [t for t in data.tables() if t == table or t.startswith(f"{table}@")]
    body = parquet_sql(data, [file for member in members for file in data.files(member)])
    return f"CREATE OR REPLACE VIEW {quote(table)} AS SELECT * FROM {body}"


def parquet_sql(data: Dataset, files: Sequence[str], more: str = "") -> str:
    """SQL that reads Parquet files of the dataset's file system. more: options for it."""
    prefix = "" if is_local(data.fs) else f"{_protocol(data)}://"
    names = ", ".join(literal(f"{prefix}{file}") for file in files)
    return f"read_parquet([{names}], union_by_name = true{more})"


def views(data: Dataset) -> list[str]:
    """Names of the tables as SQL sees them: those that have a part."""
    return [t for t in data.tables() if "@" not in t and data.parts(t)]


def _protocol(data: Dataset) -> str:
    protocol = data.fs.protocol
    return protocol if isinstance(protocol, str) else protocol[0]


def decisions_sql(tables: Sequence[str]) -> str:
    """`decisions`: the first failing reason of download, quality, dedup, select. keep is null where
    a stage has not decided a pair yet.
    """
    if "samples" not in tables:
        return "SELECT uid, CAST(NULL AS BOOLEAN) AS keep, 'not downloaded yet' AS reason FROM urls"
    cases = ["WHEN s.uid IS NULL THEN NULL", "WHEN s.status <> 'success' THEN false"]
    reasons = [
        "WHEN s.uid IS NULL THEN 'not downloaded yet'",
        "WHEN s.status <> 'success' THEN s.status",
    ]
    joins = ["LEFT JOIN samples s ON s.uid = u.uid"]
    for stage in ("quality", "dedup", "select"):
        if (table := f"decisions_{stage}") not in tables:
            continue
        joins.append(f"LEFT JOIN {table} ON {table}.uid = u.uid")
        cases += [f"WHEN {table}.uid IS NULL THEN NULL", f"WHEN NOT {table}.keep THEN false"]
        reasons += [
            f"WHEN {table}.uid IS NULL THEN '{stage} not decided yet'",
            f"WHEN NOT {table}.keep THEN {table}.reason",
        ]
    return _FIRST_FAILING.format(
        cases=" ".join(cases), reasons=" ".join(reasons), joins=" ".join(joins)
    )


def pairs_sql(con: duckdb.DuckDBPyConnection, tables: Sequence[str], decided: bool = True) -> str:
    """`pairs`: the one-row-per-uid tables joined, columns named <table>__<column>, no lists
    and no bytes.

    decided: False leaves the decisions out, for the stage that makes them.
    """
    joined = [t for t in PAIRS_LEAD if t in tables]
    joined += [
        t for t in tables if t.startswith("scores_") or (decided and t.startswith("decisions_"))
    ]
    columns, joins = ["urls.uid AS uid"], []
    for table in joined:
        columns += [
            f"{quote(table)}.{quote(c)} AS {quote(f'{table}__{c}')}"
            for c, kind in _columns(con, table)
            if c not in ("uid", "caption_id") and not kind.endswith(("]", "BLOB"))
        ]
        if table != "urls":
            original = (
                f" AND {quote(table)}.caption_id = urls.uid" if table.startswith("scores_") else ""
            )
            joins.append(f"LEFT JOIN {quote(table)} ON {quote(table)}.uid = urls.uid{original}")
    if decided:
        columns += ["decisions.keep AS keep", "decisions.reason AS reason"]
        joins.append("LEFT JOIN decisions ON decisions.uid = urls.uid")
    return f"SELECT {', '.join(columns)} FROM urls {' '.join(joins)}"


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in con.execute(f"DESCRIBE {quote(table)}").fetchall()]


def select(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
    """Run SQL and return an Arrow table. Raises ValueError with DuckDB's message on one line."""
    import duckdb

    try:
        return con.sql(sql, params=list(parameters) or None).to_arrow_table()
    except duckdb.Error as error:
        raise ValueError(" ".join(str(error).split())[:500]) from error


def run(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run SQL that returns nothing. Raises ValueError as `select` does."""
    import duckdb

    try:
        con.execute(sql)
    except duckdb.Error as error:
        raise ValueError(" ".join(str(error).split())[:500]) from error


def query(data: Dataset, sql: str, memory_limit: str = "2GB") -> pa.Table:
    """Run a user's SQL, read-only. Raises ValueError with DuckDB's first line, or for anything but
    SELECT.
    """
    import duckdb

    con = connect(data, memory_limit)
    lock(con, data)
    try:
        statements = duckdb.extract_statements(sql)
        refused = [s.type.name for s in statements if s.type != duckdb.StatementType.SELECT]
        if refused or len(statements) != 1:
            found = ", ".join(refused) or f"{len(statements)} statements"
            raise ValueError(f"`curate query` runs one SELECT; this is {found}")
        return con.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    finally:
        con.close()


def lock(con: duckdb.DuckDBPyConnection, data: Dataset) -> None:
    """From here on the connection reads the dataset and nothing else, and cannot be unlocked."""
    allowed = [f"{data.path}/"] if is_local(data.fs) else [f"{_protocol(data)}://{data.path}/"]
    scratch = con.execute("SELECT current_setting('temp_directory')").fetchone()
    allowed += [f"{scratch[0]}/"] if scratch else []
    con.execute(f"SET allowed_directories = [{', '.join(literal(a) for a in allowed)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def with_part_sql(data: Dataset, table: str) -> str:
    """SELECT of a table's rows and `part`, the number of the part that holds them."""
    number = r"CAST(regexp_extract(filename, '(\d{8})\.g\d+\.parquet$', 1) AS INTEGER)"
    body = parquet_sql(data, data.files(table), ", filename = true")
    return f"SELECT * EXCLUDE (filename), {number} AS part FROM {body}"


def some_parts_sql(
    con: duckdb.DuckDBPyConnection,
    data: Dataset,
    table: str,
    columns: Sequence[tuple[str, str]],
    parts: Sequence[int],
    numbered: bool = False,
) -> str:
    """SELECT of these columns (name, type) of some parts of a table, each cast to its type; one
    that no part has is null. Parts in a compacted file come through memory, by their row groups.

    numbered: with `part`, for a table that is never compacted.
    """
    entries = [data.parts(table)[p] for p in parts if p in data.parts(table)]
    bodies = []
    if singles := [e.file for e in entries if e.row_group is None]:
        named = ", filename = true" if numbered else ""
        bodies.append(parquet_sql(data, [f"{data.path}/{table}/{name}" for name in singles], named))
    if any(e.row_group is not None for e in entries):
        con.register(f"_{table}", _row_groups(data, table, [c for c, _ in columns], entries))
        bodies.append(quote(f"_{table}"))
    number = f", {_PART_NUMBER} AS part" if numbered else ""
    selects = [_cast_sql(con, body, columns, number) for body in bodies]
    nothing = ", ".join(f"CAST(NULL AS {kind}) AS {quote(c)}" for c, kind in columns)
    number = ", CAST(NULL AS INTEGER) AS part" if numbered else ""
    return " UNION ALL ".join(selects) or f"SELECT {nothing}{number} WHERE false"


def _cast_sql(con: Any, body: str, columns: Sequence[tuple[str, str]], number: str = "") -> str:
    have = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {body}").fetchall()}
    chosen = ", ".join(
        f"CAST({quote(c) if c in have else 'NULL'} AS {kind}) AS {quote(c)}" for c, kind in columns
    )
    return f"SELECT {chosen}{number} FROM {body}"


def _row_groups(
    data: Dataset, table: str, columns: Sequence[str], entries: Sequence[Part]
) -> pa.Table:
    """Rows of parts that lie in compacted files: one read per file."""
    groups: dict[str, list[int]] = {}
    for entry in entries:
        if entry.row_group is not None:
            groups.setdefault(entry.file, []).append(entry.row_group)
    found = []
    for name, wanted in groups.items():
        with data.fs.open(f"{data.path}/{table}/{name}", "rb") as stream:
            file = pq.ParquetFile(stream)
            have = [c for c in columns if c in file.schema_arrow.names]
            found.append(file.read_row_groups(wanted, columns=have))
    return pa.concat_tables(found, promote_options="permissive")


def draw_sql(seed: int, uid: str = "uid") -> str:
    """SQL text that sorts as schemas.tables.draw(seed, uid) does: the 56 bits it is made of."""
    return f"substr(sha256({literal(str(seed))} || chr(0) || {uid}), 1, 14)"


def number_sql(expression: str) -> str:
    """SQL of an expression as DOUBLE, with NaN as NULL. Not by `= 'nan'`: DuckDB answers that from
    the statistics of a Parquet file, which leave NaN out.
    """
    value = f"CAST(({expression}\n) AS DOUBLE)"
    return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
