"""Filter: scores_* -> rules_failed, decisions_quality.

A rule is evaluated by DuckDB over one row per downloaded pair (`evidence`). Fractions are resolved
once over the pool and then applied chunk by chunk, so that a new threshold costs SQL and no
inference. A part that was written stays written, whatever ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts, workers_for
from curate.evidence import (
    Columns,
    Evidence,
    Scales,
    chunks,
    columns_read,
    gathered,
    parts_to_judge,
)
from curate.verdicts import PASSES, UNKNOWN, Cuts, cuts_of, kept_count, verdict_sql
from schemas.configs import Rule, Rules, Workers
from schemas.tables import DECISIONS, RULES_FAILED

__all__ = ["filter_pairs", "kept_count", "to_decisions"]

WRITERS = 2  # threads that write parts: Parquet is written outside of Python's lock


def filter_pairs(data: Dataset, rules: Sequence[Rule], workers: Workers | int = 0) -> None:
    """Decide on every downloaded pair.

    Raises ValueError for a rule over a column that is not there, naming those that are.
    """
    columns = columns_read(data, rules)
    where = workers_for(data.rows("samples"), workers)
    here = where == 0 or (isinstance(where, Workers) and where.count == 0)
    tops = any(rule.keep_top is not None or rule.blend is not None for rule in rules)
    with gathered(data, rules, columns, parts_to_judge(data) if tops else ()) as evidence:
        cuts, scales = cuts_of(evidence, rules), evidence.scales
        claims = _claims(data, rules, columns, cuts, scales)
        runs = chunks(data, data.missing(claims))
        # what was gathered for the fractions will do, but a worker elsewhere gathers its own
        ready = evidence if here and tops else None

        def build() -> Work:
            def work(run: int) -> Stats:
                if ready is not None:
                    return _decide(data, runs[run], rules, cuts, claims, ready)
                threads = None if here else 1
                with gathered(data, rules, columns, runs[run], threads, scales) as evidence:
                    return _decide(data, runs[run], rules, cuts, claims, evidence)

            return work

        run_parts(build, range(len(runs)), where, label="filter")
    data.publish(*claims)


def _claims(
    data: Dataset, rules: Sequence[Rule], columns: Columns, cuts: Cuts, scales: Scales
) -> list[Claim]:
    config = Rules(rules=tuple(rules))
    state = [cuts, columns, scales] if scales else [cuts, columns]
    return [
        data.claim(
            table,
            config,
            of=("urls", "samples"),
            also=[t for t in columns if t not in ("urls", "samples")],
            artifact=digest(state),
            revisable=True,
        )
        for table in ("decisions_quality", "rules_failed")
    ]


def _decide(
    data: Dataset,
    parts: Sequence[int],
    rules: Sequence[Rule],
    cuts: Cuts,
    claims: Sequence[Claim],
    evidence: Evidence,
) -> Stats:
    some = f"part IN ({', '.join(map(str, parts))})"
    seen = _seen_sql(evidence, rules, cuts)
    rows = evidence.ask(f"SELECT {seen} WHERE {some} ORDER BY part, uid")
    begins = np.searchsorted(rows["part"].to_numpy(), [*parts, parts[-1] + 1])

    def write(at: int) -> None:
        some = rows.slice(begins[at], begins[at + 1] - begins[at])
        tables = to_decisions(some, [rule.name for rule in rules])
        for claim, table in zip(claims, tables, strict=True):
            data.write(claim, parts[at], table)

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="part") as pool:
        list(pool.map(write, range(len(parts))))
    return {"rows": rows.num_rows}


def _seen_sql(evidence: Evidence, rules: Sequence[Rule], cuts: Cuts) -> str:
    """part, uid, of each rule the verdict and, where a pair does not pass it, the value seen."""
    chosen = ["part", "uid"]
    for i, rule in enumerate(rules):
        verdict = verdict_sql(evidence, rule, cuts)
        value = evidence.column(rule) if rule.drop_if is None else "NULL"
        chosen += [
            f"{verdict} AS verdict_{i}",
            f"CASE WHEN {verdict} <> {PASSES} THEN CAST({value} AS VARCHAR) END AS value_{i}",
        ]
    return f"{', '.join(chosen)} FROM evidence"


def to_decisions(rows: pa.Table, rules: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """From uid, verdict_0.. and value_0..: decisions (the first failing rule) and every failing
    one, in the order of the rows and of the rules.
    """
    uids, n = rows["uid"].combine_chunks(), rows.num_rows
    verdicts = np.zeros((n, len(rules) + 1), np.int8)  # a last column that nobody fails
    for i in range(len(rules)):
        verdicts[:, i] = rows[f"verdict_{i}"].to_numpy()
    reasons = pa.array([text for name in rules for text in (name, f"unknown {name}")], pa.string())
    row, rule = np.nonzero(verdicts)
    said = reasons.take(pa.array(2 * rule + (verdicts[row, rule] == UNKNOWN)))
    values = pa.concat_arrays(
        [rows[f"value_{i}"].combine_chunks().cast(pa.string()) for i in range(len(rules))]
        or [pa.array([], pa.string())]
    )
    first = np.unique(row, return_index=True)
    at = np.full(n, -1)
    at[first[0]] = first[1]
    reason = said.take(pa.array(at, mask=at < 0))
    decisions = {"uid": uids, "keep": pa.array(at < 0), "reason": reason}
    failed = {
        "uid": uids.take(pa.array(row)),
        "rule": said,
        "value": values.take(pa.array(rule * n + row)),
    }
    return pa.table(decisions, schema=DECISIONS), pa.table(failed, schema=RULES_FAILED)
