"""Verdicts: rules as SQL over `evidence`, and where their fractions cut.

A missing value, NaN included, is a state of its own: the pair fails as unknown. A fraction is
resolved once, over the pool, to the last pair that it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from curate.evidence import Evidence, number_literal
from curate.query import literal, number_sql
from schemas.configs import Rule

PASSES, FAILS, UNKNOWN = 0, 1, 2

# the last pair that a fraction keeps: value, uid; without a uid all of that value are kept; None:
# it keeps nobody
Cut = tuple[float, str | None] | None
Cuts = Mapping[str, Cut]


def kept_count(n: int, fraction: float) -> int:
    """Exactly floor(n * fraction), reading the fraction as it is written: 0.3 is three tenths."""
    return math.floor(n * Fraction(repr(fraction)))


def cuts_of(evidence: Evidence, rules: Sequence[Rule]) -> dict[str, Cut]:
    """For every fraction the last pair that it keeps."""
    cuts: dict[str, Cut] = {}
    for at, rule in enumerate(rules):
        if rule.keep_top is not None:
            before = rules[:at] if rule.of == "survivors" else []
            cuts[rule.name] = _cut(evidence, rule, passing_sql(evidence, before, cuts))
    return cuts


def _cut(evidence: Evidence, rule: Rule, among: str) -> Cut:
    value = number_sql(evidence.column(rule))
    known = f"FROM evidence WHERE {among} AND {value} IS NOT NULL"
    n = int(evidence.one(f"SELECT count(*) {known}"))
    fraction = float(rule.keep_top or 0)
    # DataComp, baselines/apply_filter.py: the threshold is the value at place int(N f), in floats
    last = int(n * fraction) if rule.datacomp_compat else kept_count(n, fraction) - 1
    if last < 0 or n == 0:
        return None
    if last >= n:  # an index error in theirs
        return -math.inf, None
    at = float(evidence.one(f"SELECT {value} {known} ORDER BY 1 DESC LIMIT 1 OFFSET {last}"))
    if rule.datacomp_compat:
        return at, None
    above = int(evidence.one(f"SELECT count(*) {known} AND {value} > {number_literal(at)}"))
    equal = f"SELECT uid {known} AND {value} = {number_literal(at)} ORDER BY uid"
    return at, str(evidence.one(f"{equal} LIMIT 1 OFFSET {last - above}"))


def verdict_sql(evidence: Evidence, rule: Rule, cuts: Cuts) -> str:
    """SQL for one rule: PASSES, FAILS or UNKNOWN."""
    column = evidence.column(rule)
    seen = column if rule.drop_if is not None else number_sql(column)
    failed = column if rule.drop_if is not None else _failed(rule, f"({seen})", cuts)
    return (
        f"CAST(CASE WHEN ({seen}) IS NULL THEN {UNKNOWN} WHEN {failed} THEN {FAILS}"
        f" ELSE {PASSES} END AS TINYINT)"
    )


def passing_sql(evidence: Evidence, rules: Sequence[Rule], cuts: Cuts) -> str:
    """SQL: whether a pair passes all of these rules."""
    passed = [f"{verdict_sql(evidence, rule, cuts)} = {PASSES}" for rule in rules]
    return " AND ".join(["true", *passed])


def _failed(rule: Rule, value: str, cuts: Cuts) -> str:
    if rule.drop_below is not None:
        return f"{value} < {number_literal(rule.drop_below)}"
    if rule.drop_above is not None:
        return f"{value} > {number_literal(rule.drop_above)}"
    cut = cuts[rule.name]
    if cut is None:
        return "true"
    last, uid = number_literal(cut[0]), cut[1]
    if uid is None:
        return f"{value} < {last}"
    return f"({value} < {last} OR ({value} = {last} AND uid > {literal(uid)}))"
