"""What if: what other rules would keep, by the SQL that decides, with nothing changed.

Today's decision is the rules that decisions_quality was made with, over the scores of today; then
is a recipe's rules, with what `--set` says. No image is read and no model runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from curate.dataset import Dataset
from curate.evidence import Evidence, columns_read, gathered, parts_to_judge
from curate.query import connect, number_sql, select
from curate.render import render
from curate.reporting.text import condition, rules_of
from curate.verdicts import FAILS, PASSES, UNKNOWN, Cuts, cuts_of, passing_sql, verdict_sql
from schemas.base import explain
from schemas.configs import Rule

EXAMPLES = 10  # on each side of the line
TEXT = 200  # characters of a caption or URL that are shown at most
WAYS = ("drop_below", "drop_above", "keep_top", "drop_if")
_CHANGE = re.compile(r"([^.=]+)\.([^.=]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class RuleCount:
    """Pairs that fail a rule, whatever other rules say; None where there is no such rule."""

    name: str
    today: int | None
    then: int | None
    unknown: int  # of the latter (of the former where the rule goes): the value is missing


@dataclass(frozen=True)
class Line:
    """The pairs next to a rule's line, nearest first: value, uid, caption and URL of each."""

    rule: Rule
    kept: list[dict[str, Any]]
    dropped: list[dict[str, Any]]  # by this rule alone


@dataclass(frozen=True)
class WhatIf:
    """Counts of pairs, and examples for every rule that is not as today."""

    downloaded: int
    both: int
    only_today: int
    only_then: int
    rules: tuple[RuleCount, ...]
    lines: tuple[Line, ...]

    @property
    def today(self) -> int:
        """Pairs that are kept today."""
        return self.both + self.only_today

    @property
    def then(self) -> int:
        """Pairs that would be kept."""
        return self.both + self.only_then


def changed(rules: Sequence[Rule], changes: Sequence[str]) -> tuple[Rule, ...]:
    """The rules with some knobs set: "low_clip.drop_below=0.3". One way to say when a rule drops
    takes the place of another.

    Raises ValueError for a rule, a knob or a value that cannot be, naming those that can.
    """
    found = {rule.name: rule for rule in rules}
    for text in changes:
        if not (match := _CHANGE.fullmatch(text)):
            raise ValueError(f"{text!r}: write RULE.KNOB=VALUE, such as low_clip.drop_below=0.3")
        name, knob, value = (part.strip() for part in match.groups())
        if name not in found:
            raise ValueError(f"{text!r}: the recipe has no rule {name!r}, only {_names(found)}")
        found[name] = _with(found[name], knob, yaml.safe_load(value), text)
    return tuple(found.values())


def _with(rule: Rule, knob: str, value: object, text: str) -> Rule:
    knobs = [name for name in Rule.model_fields if name != "name"]
    if knob not in knobs:
        raise ValueError(f"{text!r}: a rule has no knob {knob!r}, only {_names(knobs)}")
    said = rule.model_dump(exclude_unset=True)
    if knob in WAYS:
        said = {k: v for k, v in said.items() if k not in (*WAYS, "datacomp_compat")}
    try:
        return Rule.model_validate(said | {knob: value})
    except ValidationError as error:
        raise ValueError(f"{text!r}: {explain(error)}") from error


def _names(names: Any) -> str:
    return ", ".join(names) or "none"


def what_if(data: Dataset, rules: Sequence[Rule], count: int = EXAMPLES) -> WhatIf:
    """What these rules would keep, beside what is kept today.

    Where nothing has been decided yet, today is the rules themselves. count: examples of a side.
    """
    today = rules_of(data) if "decisions_quality" in data.tables() else tuple(rules)
    both = [*today, *rules]
    with gathered(data, both, columns_read(data, both), parts_to_judge(data)) as evidence:
        now, then = cuts_of(evidence, today), cuts_of(evidence, rules)
        counts = evidence.ask(_counts_sql(evidence, today, rules, now, then)).to_pylist()[0]
        lines = [
            _line(data, evidence, rule, rules, then, count) for rule in rules if rule not in today
        ]
    names = list(dict.fromkeys(rule.name for rule in [*rules, *today]))
    return WhatIf(
        **{k: counts[k] for k in ("downloaded", "both", "only_today", "only_then")},
        rules=tuple(_rule_count(name, counts) for name in names),
        lines=tuple(lines),
    )


def _counts_sql(
    evidence: Evidence, today: Sequence[Rule], rules: Sequence[Rule], now: Cuts, then: Cuts
) -> str:
    chosen = [
        "count(*) AS downloaded",
        "count(*) FILTER (was AND will) AS both",
        "count(*) FILTER (was AND NOT will) AS only_today",
        "count(*) FILTER (will AND NOT was) AS only_then",
    ]
    inner = [
        f"{passing_sql(evidence, today, now)} AS was",
        f"{passing_sql(evidence, rules, then)} AS will",
    ]
    for when, some, cuts in (("today", today, now), ("then", rules, then)):
        for rule in some:
            name = f"{when}_{rule.name}"
            inner.append(f"{verdict_sql(evidence, rule, cuts)} AS {name}")
            chosen.append(f"count(*) FILTER ({name} <> {PASSES}) AS {name}")
            chosen.append(f"count(*) FILTER ({name} = {UNKNOWN}) AS unknown_{name}")
    return f"SELECT {', '.join(chosen)} FROM (SELECT {', '.join(inner)} FROM evidence)"


def _rule_count(name: str, counts: dict[str, int]) -> RuleCount:
    today, then = counts.get(f"today_{name}"), counts.get(f"then_{name}")
    when = "today" if then is None else "then"
    return RuleCount(name, today, then, counts[f"unknown_{when}_{name}"])


def _line(
    data: Dataset, evidence: Evidence, rule: Rule, rules: Sequence[Rule], cuts: Cuts, count: int
) -> Line:
    others = passing_sql(evidence, [r for r in rules if r is not rule], cuts)
    verdict = verdict_sql(evidence, rule, cuts)
    column = evidence.column(rule)
    if rule.drop_if is not None:  # no value, no nearness: a fair draw
        nearest = farthest = "substr(uid, 9), uid"
    else:
        best, worst = ("DESC", "ASC") if rule.drop_above is None else ("ASC", "DESC")
        value = number_sql(column)
        nearest, farthest = f"{value} {worst}, uid DESC", f"{value} {best}, uid"
    sides = [
        evidence.ask(
            f"SELECT part, uid, CAST({column} AS VARCHAR) AS value FROM evidence"
            f" WHERE {others} AND {verdict} = {state} ORDER BY {order} LIMIT {count:d}"
        ).to_pylist()
        for state, order in ((PASSES, nearest), (FAILS, farthest))
    ]
    return Line(rule, *(_described(data, side) for side in sides))


def _described(data: Dataset, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With caption and URL: of `urls` only the parts that hold the pairs are read."""
    known: dict[str, dict[str, Any]] = {}
    for part in sorted({pair["part"] for pair in pairs}):
        rows = data.read("urls", part, ["uid", "caption", "url"])
        wanted = pa.array([p["uid"] for p in pairs if p["part"] == part])
        some = rows.filter(pc.is_in(rows["uid"], wanted))
        known |= {row["uid"]: row for row in some.to_pylist()}
    return [
        {"value": p["value"], "uid": p["uid"]}
        | {name: (known[p["uid"]][name] or "")[:TEXT] for name in ("caption", "url")}
        for p in pairs
    ]


def told(found: WhatIf) -> str:
    """The answer as text. What strangers wrote cannot steer a terminal."""
    total = max(found.downloaded, 1)
    counts = {
        "downloaded": found.downloaded,
        "kept today": found.today,
        "kept then": found.then,
        "in both": found.both,
        "only today": found.only_today,
        "only then": found.only_then,
    }
    lines = [f"{name:<12}{n:>14,}{100 * n / total:>8.1f} %" for name, n in counts.items()]
    rows = [
        {
            "rule": r.name,
            "fail today": _count(r.today),
            "fail then": _count(r.then),
            "unknown": _count(r.unknown),
        }
        for r in found.rules
    ]
    blocks = ["\n".join(lines), _table(rows)]
    for line in found.lines:
        blocks.append(f"{line.rule.name} drops: {condition(line.rule)}")
        for side, pairs in (("just kept", line.kept), ("just dropped by it alone", line.dropped)):
            shown = [
                {
                    "value": p["value"],
                    "uid": p["uid"][:12],
                    "caption": p["caption"],
                    "url": p["url"],
                }
                for p in pairs
            ]
            blocks.append(f"{side}:\n{_table(shown)}" if pairs else f"{side}: none")
    if not found.lines:
        blocks.append("the rules are those of today")
    return "\n\n".join(block for block in blocks if block)


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _table(rows: list[dict[str, Any]]) -> str:
    return render(pa.Table.from_pylist(rows), "table").decode().rstrip() if rows else ""


def decided(data: Dataset) -> str:
    """How many pairs decisions_quality keeps, and how many it drops for which reason."""
    con = connect(data, only=["decisions_quality"] if data.parts("decisions_quality") else ())
    try:
        sql = (
            "SELECT reason, count(*) AS pairs FROM decisions_quality GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        rows = select(con, sql).to_pylist()
    finally:
        con.close()
    shown = [{"reason": r["reason"] or "(kept)", "pairs": f"{r['pairs']:,}"} for r in rows]
    return _table(shown)
