"""Filter: scores_* -> rules_failed, decisions_quality.

A rule is evaluated by DuckDB over one row per downloaded pair. A missing score, NaN included, is
its own state: the
pair is dropped with the reason `unknown <rule>`. Fractions are resolved once over the pool to a cut
(value, uid) and
then applied part by part, so that a new threshold costs SQL and no inference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts, workers_for
from curate.query import (
    columns_of,
    connect,
    connect_part,
    literal,
    lock,
    pairs_sql,
    quote,
    select,
    views,
)
from schemas.configs import Rule, Rules, Workers
from schemas.tables import DECISIONS, RULES_FAILED

Columns = dict[str, list[tuple[str, str]]]  # of each table: name and SQL type
Cut = tuple[float, str] | None  # the last pair that a fraction keeps; None: it keeps nobody


def filter_pairs(data: Dataset, rules: Sequence[Rule], workers: Workers | int = 0) -> None:
    """Decide on every downloaded pair.

    Raises ValueError for a rule over a column that is not there, naming those that are.
    """
    config = Rules(rules=tuple(rules))
    tables = _tables(data, rules)
    columns, cuts = resolve(data, rules, tables)
    claims = [
        data.claim(
            table,
            config,
            of=tables[:2],
            also=tables[2:],
            artifact=digest([cuts, columns]),
            revisable=True,
        )
        for table in ("decisions_quality", "rules_failed")
    ]

    def build() -> Work:
        return lambda part: _decide(data, part, rules, columns, cuts, claims)

    workers = workers_for(data.rows("samples"), workers)
    run_parts(build, data.missing(claims), workers, label="filter")
    data.publish(*claims)


def _tables(data: Dataset, rules: Sequence[Rule]) -> list[str]:
    """The tables that the rules speak of, after urls and samples."""
    text = " ".join(f"{r.value or ''} {r.drop_if or ''}" for r in rules)
    return [
        "urls",
        "samples",
        *(t for t in views(data) if t.startswith("scores_") and f"{t}__" in text),
    ]


def kept_count(n: int, fraction: float) -> int:
    """Exactly floor(n * fraction), reading the fraction as it is written: 0.3 is three tenths."""
    return math.floor(n * Fraction(repr(fraction)))


def resolve(
    data: Dataset, rules: Sequence[Rule], tables: Sequence[str]
) -> tuple[Columns, dict[str, Cut]]:
    """The columns that rules can speak of, and for every fraction the last pair that it keeps."""
    con = connect(data)
    lock(con, data)
    columns = columns_of(con, tables)
    con.execute(f"CREATE TEMP VIEW scored AS {pairs_sql(con, tables, decided=False)}")
    cuts: dict[str, Cut] = {}
    for at, rule in enumerate(rules):
        if rule.keep_top is not None:
            cuts[rule.name] = _cut(con, rules[:at] if rule.of == "survivors" else [], rule, cuts)
    con.close()
    return columns, cuts


def _cut(con: Any, before: Sequence[Rule], rule: Rule, cuts: dict[str, Cut]) -> Cut:
    """The last pair that a fraction keeps, ordered by value, ties by uid."""
    passed = [f"({failure_sql(r, cuts)}) IS NULL" for r in before]
    where = " AND ".join(["samples__status = 'success'", f"{_value(rule)} IS NOT NULL", *passed])
    n = int(_run(con, f"SELECT count(*) AS n FROM scored WHERE {where}", [rule])["n"][0].as_py())
    last = kept_count(n, float(rule.keep_top or 0)) - 1
    if last < 0:
        return None
    order = (
        f"SELECT {_value(rule)} AS value, uid FROM scored WHERE {where} ORDER BY value DESC, uid"
    )
    found = _run(con, f"{order} LIMIT 1 OFFSET {last}", [rule]).to_pylist()[0]
    return found["value"], found["uid"]


def _value(rule: Rule) -> str:
    column = quote(str(rule.value))
    return f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL ELSE CAST({column} AS DOUBLE) END"


def failure_sql(rule: Rule, cuts: dict[str, Cut]) -> str:
    """SQL for one rule: NULL where the pair passes, else the reason."""
    unknown = f"({_predicate(rule) if rule.drop_if is not None else _value(rule)}) IS NULL"
    unscored = literal(f"unknown {rule.name}")
    failed = f"WHEN {_failed(rule, cuts)} THEN {literal(rule.name)}"
    return f"CASE WHEN {unknown} THEN {unscored} {failed} END"


def _predicate(rule: Rule) -> str:
    # TRY: a value that an expression cannot take costs its pair, which is unknown, not the run
    return f"TRY(CAST(({rule.drop_if}\n) AS BOOLEAN))"


def _failed(rule: Rule, cuts: dict[str, Cut]) -> str:
    if rule.drop_if is not None:
        return _predicate(rule)
    value = f"({_value(rule)})"
    if rule.drop_below is not None:
        return f"{value} < {_number(rule.drop_below)}"
    if rule.drop_above is not None:
        return f"{value} > {_number(rule.drop_above)}"
    cut = cuts[rule.name]
    if cut is None:
        return "true"
    last, uid = _number(cut[0]), literal(cut[1])
    return f"({value} < {last} OR ({value} = {last} AND uid > {uid}))"


def _number(value: float) -> str:
    return f"{literal(repr(value))}::DOUBLE"


def _decide(
    data: Dataset,
    part: int,
    rules: Sequence[Rule],
    columns: Columns,
    cuts: dict[str, Cut],
    claims: Sequence[Claim],
) -> Stats:
    con = connect_part(data, columns, part)
    con.execute(f"CREATE VIEW scored AS {pairs_sql(con, list(columns), decided=False)}")
    verdicts = [f"{failure_sql(r, cuts)} AS verdict_{i}" for i, r in enumerate(rules)]
    seen = [
        f"CAST({quote(r.value) if r.value else 'NULL'} AS VARCHAR) AS value_{i}"
        for i, r in enumerate(rules)
    ]
    chosen = ", ".join(["uid", *verdicts, *seen])
    where = "samples__status = 'success'"
    rows = _run(con, f"SELECT {chosen} FROM scored WHERE {where} ORDER BY uid", rules)
    con.close()
    for claim, table in zip(claims, to_decisions(rows, len(rules)), strict=True):
        data.write(claim, part, table)
    return {"rows": rows.num_rows}


def to_decisions(rows: pa.Table, rules: int) -> tuple[pa.Table, pa.Table]:
    """From verdict_0.. and value_0..: decisions (the first failing rule) and every failing one."""
    verdicts = [rows[f"verdict_{i}"].to_pylist() for i in range(rules)]
    values = [rows[f"value_{i}"].to_pylist() for i in range(rules)]
    uids = rows["uid"].to_pylist()
    reasons = [next((v[i] for v in verdicts if v[i] is not None), None) for i in range(len(uids))]
    failed = [
        {"uid": uid, "rule": verdict[i], "value": value[i]}
        for i, uid in enumerate(uids)
        for verdict, value in zip(verdicts, values, strict=True)
        if verdict[i] is not None
    ]
    decisions = {"uid": uids, "keep": [r is None for r in reasons], "reason": reasons}
    return (
        pa.table(decisions, schema=DECISIONS),
        pa.Table.from_pylist(failed, schema=RULES_FAILED),
    )


def _run(con: Any, sql: str, rules: Sequence[Rule]) -> pa.Table:
    try:
        return select(con, sql)
    except ValueError as error:
        raise ValueError(f"the rules {', '.join(r.name for r in rules)}: {error}") from error
