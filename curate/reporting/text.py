"""Values as people read them. Nothing passes that would steer a terminal or a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from curate.dataset import Dataset
from schemas.configs import Rule, Rules

# Cc: terminal escapes; Cf: bidi overrides, invisible letters; Zl, Zp: line breaks; rest: no drawing
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # part of Persian words and of emoji
_UNKNOWN = "unknown "  # what a reason begins with where a rule's score is missing


def printable(text: str, limit: int | None = None) -> str:
    r"""The text with control and invisible characters written out: `\x1b`, `\n`, `\u202e`.

    limit: of characters before that; what is longer ends in an ellipsis.
    """
    cut = text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        c if c in _JOINERS or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in cut
    )


def in_code(text: str) -> str:
    """Strangers' words in a cell of a Markdown table: a code span, where nothing means anything."""
    return "`" + printable(text, 200).replace("`", "'").replace("|", r"\|") + "`"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def number(value: float) -> str:
    """Four digits that matter: 0.2813, 12.5, 10,234."""
    if isinstance(value, int) or abs(value) >= 10_000:  # noqa: PLR2004 - from here on decimals are noise
        return f"{value:,.0f}"
    return f"{value:.4g}"


def shown(value: object) -> str:
    """Any value of a table's cell, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return printable(str(value))


def measured(value: str | None) -> str | None:
    """A value of `rules_failed`: numbers shortened, the rest printable; None where unknown."""
    if value is None:
        return None
    return (
        number(float(value))
        if re.fullmatch(r"-?\d+\.\d+(e[+-]?\d+)?", value)
        else printable(value, 120)
    )


def rules_of(data: Dataset) -> tuple[Rule, ...]:
    """The rules that `decisions_quality` was made with; () where it has not been made."""
    rules = data.config_of("decisions_quality").get("rules", ())
    return Rules.model_validate({"rules": rules}).rules


def rule_of(reason: str) -> str:
    """The rule that a reason names: `low_clip` and `unknown low_clip` both mean low_clip."""
    return reason.removeprefix(_UNKNOWN)


def is_unknown(reason: str) -> bool:
    """Whether the reason says that a score was missing, not that it was bad."""
    return reason.startswith(_UNKNOWN)


def condition(rule: Rule) -> str:
    """What a rule drops, in words: `scores_clip__clip_score below 0.28`."""
    if rule.drop_below is not None:
        return f"{rule.subject} below {number(rule.drop_below)}"
    if rule.drop_above is not None:
        return f"{rule.subject} above {number(rule.drop_above)}"
    if rule.keep_top is not None:
        return f"{rule.subject} not in the top {100 * rule.keep_top:g} % of the {rule.of}"
    return str(rule.drop_if)


def home(column: str, tables: Sequence[str]) -> tuple[str, str]:
    """The table and its column that a column of `pairs` is; else ValueError."""
    owners = [t for t in tables if column.startswith(f"{t}__")]
    if not owners:
        raise ValueError(
            f"no table has the column {column!r}; columns are named <table>__<column>, "
            f"tables are {', '.join(tables)}"
        )
    table = max(owners, key=len)
    return table, column.removeprefix(f"{table}__")
