"""What the demo proves: the truth about the pool, laid beside what the curation decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from curate.dataset import Dataset
from curate.demo.plan import DEAD_KINDS
from curate.query import connect, literal, select

Row = dict[str, Any]
COPIES = ("exact_copy", "near_duplicate")
MUST_FAIL = tuple(k for k in DEAD_KINDS if k != "flaky_500")

_ROWS = """
SELECT t.url, t.kind, t.of, t.drawing, t.natural_group IS NOT NULL AS natural, p.uid, p.keep,
       p.reason, p.samples__status AS status, p.scores_bootstrap__clip_score AS score
FROM read_parquet({truth}) t
LEFT JOIN pairs p ON p.urls__url = t.url AND p.urls__caption = t.caption
"""


def verdict(data: Dataset, truth: Path) -> str:
    """Which planted faults were caught, what clean pairs each rule lost, and the score's AUC."""
    rows = truth_rows(data, truth)
    return "\n".join([*_caught_lines(rows), "", *_lost_lines(rows), "", _auc_line(rows)])


def truth_rows(data: Dataset, truth: Path) -> list[Row]:
    """One row per planted pair and what became of it. Raises ValueError where one is missing."""
    con = connect(data)
    rows: list[Row] = select(con, _ROWS.format(truth=literal(str(truth)))).to_pylist()
    con.close()
    if lost := [r["url"] for r in rows if r["uid"] is None]:
        raise ValueError(f"{len(lost)} pairs of {truth} are not in {data.root}, such as {lost[0]}")
    return rows


def caught(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """By kind of fault: (caught, planted).

    A copy is caught when it and its original are not both kept; a dead link when it failed; a link
    that answers 500 once counts when it succeeded.
    """
    kept = {r["url"] for r in rows if r["keep"]}
    tests: dict[str, Callable[[Row], bool]] = {
        "swapped": lambda r: r["reason"] == "low_alignment",
        "boilerplate": lambda r: r["reason"] == "boilerplate",
        **{kind: lambda r: not (r["url"] in kept and r["of"] in kept) for kind in COPIES},
        **{kind: lambda r: r["status"] not in (None, "success") for kind in MUST_FAIL},
        "flaky_500": lambda r: r["status"] == "success",
    }
    return {
        kind: (sum(map(test, of_kind)), len(of_kind))
        for kind, test in tests.items()
        if (of_kind := [r for r in rows if r["kind"] == kind])
    }


def lost(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """By rule: clean pairs it lost, (others, natural near-duplicates).

    A clean pair that gave way to a copy of itself is not lost: its drawing is still there.
    """
    kept = {r["drawing"] for r in rows if r["keep"]}
    gone = [
        r
        for r in rows
        if r["kind"] == "clean"
        and r["keep"] is False
        and not (str(r["reason"]).startswith("duplicate") and r["drawing"] in kept)
    ]
    reasons = sorted({str(r["reason"]) for r in gone})
    return {
        reason: (
            sum(r["reason"] == reason and not r["natural"] for r in gone),
            sum(r["reason"] == reason and r["natural"] for r in gone),
        )
        for reason in reasons
    }


def auc(positive: Iterable[float], negative: Iterable[float]) -> float:
    """Probability that a positive scores higher than a negative; ties count half (Mann-Whitney)."""
    high, low = np.array(list(positive), float), np.sort(np.array(list(negative), float))
    below = np.searchsorted(low, high, "left")
    ties = np.searchsorted(low, high, "right") - below
    return float((below + ties / 2).sum() / (len(high) * len(low)))


def alignment_auc(rows: list[Row]) -> float:
    """AUC of the bootstrap score: clean against swapped pairs; NaN where one side is empty."""
    of = {
        kind: [r["score"] for r in rows if r["kind"] == kind and r["score"] is not None]
        for kind in ("clean", "swapped")
    }
    return auc(of["clean"], of["swapped"]) if of["clean"] and of["swapped"] else float("nan")


def _caught_lines(rows: list[Row]) -> list[str]:
    lines = [f"{'planted fault':22}{'planted':>9}{'caught':>9}{'share':>9}"]
    for kind, (hits, planted) in caught(rows).items():
        name = "500, then fine: here" if kind == "flaky_500" else kind.replace("_", " ")
        lines.append(f"{name:22}{planted:9}{hits:9}{hits / planted:9.1%}")
    return lines


def _lost_lines(rows: list[Row]) -> list[str]:
    clean = [r for r in rows if r["kind"] == "clean"]
    natural = sum(r["natural"] for r in clean)
    others = len(clean) - natural
    lines = [
        f"clean pairs lost to each rule, of {others} without and {natural} with natural",
        "near-duplicates such as skin tones:",
        f"{'rule':22}{'without':>9}{'share':>9}{'with':>9}{'share':>9}",
    ]
    for reason, (a, b) in lost(rows).items():
        lines.append(f"{reason:22}{a:9}{a / max(others, 1):9.1%}{b:9}{b / max(natural, 1):9.1%}")
    return lines


def _auc_line(rows: list[Row]) -> str:
    return f"bootstrap score, true against swapped captions: AUC {alignment_auc(rows):.3f}"
