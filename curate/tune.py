"""Tune: the threshold of a rule that keeps a given fraction, and what it would then come to.

Among the values of the pool, of the pairs that the rules before let pass, or so that the whole
recipe keeps that fraction of what was downloaded. Nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Literal

from curate.dataset import Dataset
from curate.evidence import (
    Evidence,
    columns_read,
    gathered,
    number_literal,
    parts_to_judge,
)
from curate.query import number_sql
from curate.reporting.text import number
from curate.verdicts import cuts_of, kept_count, passing_sql
from schemas.configs import Rule

Of = Literal["pool", "survivors", "recipe"]
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_DIGITS = 17  # of a double, at most


@dataclass(frozen=True)
class Suggestion:
    """A threshold for a fraction. Ties make it keep more than asked for."""

    keep: float
    threshold: float
    rule: Rule  # with that threshold
    kept: int  # of those the fraction is of
    recipe: int  # kept by the whole recipe with it


@dataclass(frozen=True)
class Tuned:
    """Suggestions for one rule."""

    rule: Rule
    of: Of
    n: int  # pairs that the fraction is of
    known: int  # of them those with a value
    downloaded: int
    quantiles: tuple[float, ...]  # at QUANTILES, of the known values
    suggestions: tuple[Suggestion, ...]


def tune(
    data: Dataset, rules: Sequence[Rule], name: str, keeps: Sequence[float], of: Of | None = None
) -> Tuned:
    """Thresholds of the rule `name` that keep these fractions.

    of: what they are fractions of: the known values of the pool or of the survivors of the rules
    before (None: as the rule says), or all that was downloaded, kept by the whole recipe.
    Raises ValueError for a rule that is not there, or has no threshold, or cannot keep so many.
    """
    at = _place(rules, name)
    rule, basis = rules[at], of or rules[at].of
    _check(rules, at, keeps, basis)
    with gathered(data, rules, columns_read(data, rules), parts_to_judge(data)) as evidence:
        cuts = cuts_of(evidence, rules)
        others = {
            "pool": [],
            "survivors": list(rules[:at]),
            "recipe": [r for r in rules if r is not rule],
        }
        among = passing_sql(evidence, others[basis], cuts)
        value = number_sql(evidence.column(rule))
        known_sql = f"FROM evidence WHERE {among} AND {value} IS NOT NULL"
        known = int(evidence.one(f"SELECT count(*) {known_sql}"))
        downloaded = int(evidence.one("SELECT count(*) FROM evidence"))
        n = downloaded if basis == "recipe" else known
        quantiles = evidence.one(f"SELECT quantile_disc({value}, {list(QUANTILES)}) {known_sql}")
        suggestions = [
            _suggestion(evidence, rules, at, keep, kept_count(n, keep), known, known_sql)
            for keep in keeps
        ]
    return Tuned(rule, basis, n, known, downloaded, tuple(quantiles or ()), tuple(suggestions))


def _place(rules: Sequence[Rule], name: str) -> int:
    for at, rule in enumerate(rules):
        if rule.name == name:
            if rule.drop_if is not None:
                raise ValueError(f"rule {name!r} is a predicate: it has no threshold to tune")
            return at
    have = ", ".join(rule.name for rule in rules) or "none"
    raise ValueError(f"the recipe has no rule {name!r}, only {have}")


def _check(rules: Sequence[Rule], at: int, keeps: Sequence[float], of: Of) -> None:
    for keep in keeps:
        if not 0 < keep <= 1:
            raise ValueError(f"--keep {keep:g}: a fraction is above 0 and at most 1")
    later = [r.name for r in rules[at + 1 :] if r.keep_top is not None and r.of == "survivors"]
    if of == "recipe" and later:
        raise ValueError(
            f"what {later[0]!r} keeps depends on what {rules[at].name!r} lets pass: "
            "tune --of pool or survivors"
        )


def _suggestion(
    evidence: Evidence,
    rules: Sequence[Rule],
    at: int,
    keep: float,
    wanted: int,
    known: int,
    known_sql: str,
) -> Suggestion:
    if not 0 < wanted <= known:
        raise ValueError(
            f"--keep {keep:g} is {wanted:,} pairs; the rule {rules[at].name!r} can keep 1 to"
            f" {known:,} here"
        )
    upward = (
        rules[at].drop_above is None
    )  # more is better; else values count with their sign turned
    value = number_sql(evidence.column(rules[at]))
    value = f"({value})" if upward else f"(-({value}))"
    last = float(
        evidence.one(f"SELECT {value} {known_sql} ORDER BY 1 DESC LIMIT 1 OFFSET {wanted - 1}")
    )
    literal = number_literal(last)
    next_one = evidence.one(f"SELECT max({value}) {known_sql} AND {value} < {literal}")
    short = shortest(-math.inf if next_one is None else float(next_one), last)
    threshold = short if upward else -short
    rule = _threshold_rule(rules[at], threshold)
    changed = [*rules[:at], rule, *rules[at + 1 :]]
    passing = passing_sql(evidence, changed, cuts_of(evidence, changed))
    return Suggestion(
        keep,
        threshold,
        rule,
        int(evidence.one(f"SELECT count(*) {known_sql} AND {value} >= {literal}")),
        int(evidence.one(f"SELECT count(*) FROM evidence WHERE {passing}")),
    )


def _threshold_rule(rule: Rule, threshold: float) -> Rule:
    way = "drop_below" if rule.drop_above is None else "drop_above"
    said = rule.model_dump(include={"name", "value", "blend", "of", "fault"})
    return Rule.model_validate(said | {way: threshold})


def shortest(below: float, at: float) -> float:
    """The number with the fewest decimals that is above `below` and not above `at`."""
    if math.isfinite(at):
        for digits in range(_DIGITS):
            rounded = Decimal(at).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR)
            if below < float(rounded) <= at:
                return float(rounded)
    return at


def told(found: Tuned) -> str:
    """The suggestions as text."""
    way = "drop_below" if found.rule.drop_above is None else "drop_above"
    of = {
        "pool": "known values in the pool",
        "survivors": "known values among the pairs that the rules before let pass",
        "recipe": "downloaded pairs, kept by the whole recipe",
    }[found.of]
    lines = [
        f"{found.rule.name}: {found.rule.subject}",
        f"fractions are of {found.n:,} {of}; {found.downloaded:,} pairs were downloaded",
        "",
        f"{'keep':>8}  {way:>20}  {'kept':>12}  {'share':>7}  {'by the recipe':>14}",
    ]
    for s in found.suggestions:
        share = 100 * s.kept / max(found.n, 1)
        lines.append(
            f"{s.keep:>8g}  {s.threshold!r:>20}  {s.kept:>12,}  {share:>5.1f} %  {s.recipe:>14,}"
        )
    lines += ["", "quantile  value"]
    lines += [f"{q:>8g}  {number(v)}" for q, v in zip(QUANTILES, found.quantiles, strict=False)]
    return "\n".join(lines)
