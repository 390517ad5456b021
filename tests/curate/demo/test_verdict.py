"""The demo's judge: what counts as caught, what as lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.demo.verdict import alignment_auc, auc, caught, lost


def row(url: str, kind: str = "clean", **more: Any) -> dict[str, Any]:
    facts = {"of": None, "drawing": url, "natural": False, "keep": True, "reason": None}
    return {"url": url, "kind": kind, "status": "success", "score": None} | facts | more


def test_a_copy_is_caught_when_not_both_stay():
    """Whichever of the two goes; when both stay it is missed."""
    for keep, original, hit in (
        (False, True, 1),
        (True, False, 1),
        (False, False, 1),
        (True, True, 0),
    ):
        rows = [row("a", keep=original), row("b", "near_duplicate", of="a", keep=keep)]
        assert caught(rows)["near_duplicate"] == (hit, 1)


def test_dead_links_must_fail_and_flaky_ones_succeed():
    """A 404 that became a sample is missed, and so is a 500-then-fine that did not."""
    rows = [
        row("a", "dead_404", status="failed_to_download"),
        row("b", "dead_404"),
        row("c", "flaky_500"),
        row("d", "flaky_500", status="failed_to_download"),
        row("e", "truncated", status=None),
    ]
    assert caught(rows) == {"dead_404": (1, 2), "truncated": (0, 1), "flaky_500": (1, 2)}


def test_a_clean_pair_is_lost_unless_its_drawing_stays():
    """Giving way to a copy of itself is no loss; to another drawing, or to a rule, it is."""
    rows = [
        row("a", keep=False, reason="duplicate_exact", drawing="x"),
        row("b", "exact_copy", of="a", drawing="x"),
        row("c", keep=False, reason="duplicate_perceptual"),
        row("d", keep=False, reason="duplicate_perceptual", natural=True),
        row("e", keep=False, reason="low_alignment", drawing="x"),
        row("f", "swapped", keep=False, reason="low_alignment"),
    ]
    assert lost(rows) == {"duplicate_perceptual": (1, 1), "low_alignment": (1, 0)}


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_share_of_pairs_in_the_right_order(high: list[int], low: list[int]):
    """Against counting all pairs, ties as half."""
    wins = np.mean([(a > b) + (a == b) / 2 for a in high for b in low])
    assert auc(high, low) == pytest.approx(wins)


def test_the_score_is_judged_on_clean_against_swapped():
    """Other kinds and missing scores stay out; an empty side is no number."""
    rows = [row("a", score=0.9), row("b", "swapped", score=0.1), row("c", "exact_copy", score=0.0)]
    assert alignment_auc([*rows, row("d")]) == 1.0
    assert math.isnan(alignment_auc(rows[:1]))
