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

from curate.dataset import Dataset, digest
from curate.engine import Stats, Work, run_parts, workers_for
from curate.query import connect, connect_part, literal, pairs_sql, quote, select, views
from schemas.configs import Rule, Rules, Workers
from schemas.tables import DECISIONS, RULES_FAILED

Cut = tuple[float, str] | None  # the last pair that a fraction keeps; None: it keeps nobody


def filter_pairs(data: Dataset, rules: Sequence[Rule], workers: Workers | int = 0) -> None:
    """Decide on every downloaded pair. Raises ValueError for a rule over a column that is not
    there, naming those that are.
    """
    config = Rules(rules=tuple(rules))
    tables = _tables(data, rules)
    cuts = resolve(data, rules, tables)
    state = digest([data.fingerprint(tables) if cuts else "", cuts])
    claims = [
        data.claim(table, config, of=tables, artifact=state, revisable=True)
        for table in ("decisions_quality", "rules_failed")
    ]

    def build() -> Work:
        return lambda part: _decide(data, part, rules, tables, cuts, claims)

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


def resolve(data: Dataset, rules: Sequence[Rule], tables: Sequence[str]) -> dict[str, Cut]:
    """For every rule with a fraction, the last pair that it keeps: by value, ties by uid."""
    if not any(r.keep_top is not None for r in rules):
        return {}
    con = connect(data)
    con.execute(f"CREATE VIEW scored AS {pairs_sql(con, tables, decided=False)}")
    cuts: dict[str, Cut] = {}
    for at, rule in enumerate(rules):
        if rule.keep_top is None:
            continue
        passed = (
            [f"({failure_sql(r, cuts)}) IS NULL" for r in rules[:at]]
            if rule.of == "survivors"
            else []
        )
        where = " AND ".join(
            ["samples__status = 'success'", f"{_value(rule)} IS NOT NULL", *passed]
        )
        n = int(_run(con, f"SELECT count(*) AS n FROM scored WHERE {where}", rules)["n"][0].as_py())
        last = kept_count(n, rule.keep_top) - 1
        chosen = f"SELECT {_value(rule)} AS value, uid FROM scored WHERE {where}"
        order = f"{chosen} ORDER BY value DESC, uid"
        found = _run(con, f"{order} LIMIT 1 OFFSET {last}", rules).to_pylist() if last >= 0 else []
        cuts[rule.name] = (found[0]["value"], found[0]["uid"]) if found else None
    con.close()
    return cuts


def _value(rule: Rule) -> str:
    column = quote(str(rule.value))
    return f"CASE WHEN isnan(CAST({column} AS DOUBLE)) THEN NULL ELSE CAST({column} AS DOUBLE) END"


def failure_sql(rule: Rule, cuts: dict[str, Cut]) -> str:
    """SQL for one rule: NULL where the pair passes, else the reason."""
    unknown = f"({rule.drop_if if rule.drop_if is not None else _value(rule)}) IS NULL"
    unscored = literal(f"unknown {rule.name}")
    failed = f"WHEN {_failed(rule, cuts)} THEN {literal(rule.name)}"
    return f"CASE WHEN {unknown} THEN {unscored} {failed} END"


def _failed(rule: Rule, cuts: dict[str, Cut]) -> str:
    if rule.drop_if is not None:
        return f"({rule.drop_if})"
    value = f"({_value(rule)})"
    if rule.drop_below is not None:
        return f"{value} < {rule.drop_below!r}"
    if rule.drop_above is not None:
        return f"{value} > {rule.drop_above!r}"
    cut = cuts[rule.name]
    if cut is None:
        return "true"
    return f"({value} < {cut[0]!r} OR ({value} = {cut[0]!r} AND uid > {literal(cut[1])}))"


def _decide(
    data: Dataset,
    part: int,
    rules: Sequence[Rule],
    tables: Sequence[str],
    cuts: dict[str, Cut],
    claims: Sequence[Any],
) -> Stats:
    con = connect_part(data, tables, part)
    con.execute(f"CREATE VIEW scored AS {pairs_sql(con, tables, decided=False)}")
    verdicts = ", ".join(f"{failure_sql(r, cuts)} AS {quote(r.name)}" for r in rules)
    seen = ", ".join(
        f"CAST({quote(r.value)} AS VARCHAR) AS {quote(f'{r.name} value')}" for r in rules if r.value
    )
    columns = ", ".join(c for c in ("uid", verdicts, seen) if c)
    rows = _run(
        con, f"SELECT {columns} FROM scored WHERE samples__status = 'success' ORDER BY uid", rules
    )
    con.close()
    decisions, failed = to_decisions(rows, [r.name for r in rules])
    data.write(claims[0], part, decisions)
    data.write(claims[1], part, failed)
    return {"rows": rows.num_rows}


def to_decisions(rows: pa.Table, names: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """From one verdict column per rule: decisions (the first failing rule) and rules_failed (every
    failing one).
    """
    found = rows.to_pydict()
    reasons = [
        next((found[n][i] for n in names if found[n][i] is not None), None)
        for i in range(rows.num_rows)
    ]
    decisions = {"uid": found["uid"], "keep": [r is None for r in reasons], "reason": reasons}
    failed: dict[str, list[Any]] = {"uid": [], "rule": [], "value": []}
    for i, uid in enumerate(found["uid"]):
        for name in names:
            if found[name][i] is not None:
                failed["uid"].append(uid)
                failed["rule"].append(found[name][i])
                failed["value"].append(found.get(f"{name} value", [None] * (i + 1))[i])
    return pa.table(decisions, schema=DECISIONS), pa.table(failed, schema=RULES_FAILED)


def _run(con: Any, sql: str, rules: Sequence[Rule]) -> pa.Table:
    try:
        return select(con, sql)
    except ValueError as error:
        raise ValueError(f"the rules {', '.join(r.name for r in rules)}: {error}") from error
