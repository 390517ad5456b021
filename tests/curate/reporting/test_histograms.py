"""Distributions: every known value is in one bar, and thresholds stand between what they part."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.query import connect, views
from curate.reporting.charts import histogram_svg, ticks
from curate.reporting.histograms import Histogram, Threshold, histograms
from schemas.configs import Rule
from tests.gallery import Item, gallery, shape

SCORE = st.none() | st.floats(width=32)
PICTURE = shape(0)


def drawn(root, scores, rules) -> list[Histogram]:
    pairs = [
        Item(f"https://x.example/{i}", "c", PICTURE, s, width=100 + i % 7)
        for i, s in enumerate(scores)
    ]
    data = gallery(root, pairs, rules)
    return histograms(connect(data), rules, views(data))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scores=st.lists(SCORE, min_size=1, max_size=40))
def test_every_known_value_is_in_one_bar(scores, tmp_path_factory):
    """NaN, infinities and nulls are unknown; all others are counted once, kept ones among them."""
    rule = Rule(name="low", value="scores_clip__clip_score", drop_below=0.0)
    found = drawn(tmp_path_factory.mktemp("set"), scores, [rule])
    known = [s for s in scores if s is not None and math.isfinite(s)]
    if not known:
        assert found == []
        return
    assert sum(found[0].everyone) == found[0].known == len(known)
    assert found[0].unknown == len(scores) - len(known)
    assert sum(found[0].kept) == sum(s >= 0 for s in known)
    assert "distribution of scores_clip__clip_score" in histogram_svg(found[0])


def test_thresholds_come_from_the_rules(tmp_path):
    """drop_below, drop_above and the cut that a fraction came to;
    predicates draw the columns that they name.
    """
    rules = [
        Rule(name="low", value="scores_clip__clip_score", drop_below=0.2),
        Rule(name="top", value="scores_clip__clip_score", keep_top=0.5),
        Rule(name="odd", drop_if="samples__original_width = 103"),
    ]
    scores, width = drawn(tmp_path / "set", [i / 10 for i in range(10)], rules)
    assert [t.label for t in scores.thresholds] == ["low: below 0.2", "top: below 0.4"]
    assert (width.column, width.thresholds, width.whole_numbers) == (
        "samples__original_width",
        (),
        True,
    )
    assert width.everyone == (2, 2, 2, 1, 1, 1, 1)
    assert (width.lo, width.hi) == (99.5, 106.5)


def test_without_rules_the_scorers_main_columns_are_drawn(tmp_path):
    """Real-valued columns of scores_* tables."""
    assert [h.column for h in drawn(tmp_path / "set", [0.1, 0.2], [])] == [
        "scores_clip__clip_score"
    ]


def test_a_threshold_outside_of_all_values_is_still_drawn(tmp_path):
    """The axis reaches as far as the rule."""
    rule = Rule(name="low", value="scores_clip__clip_score", drop_below=5.0)
    (found,) = drawn(tmp_path / "set", [0.1, 0.2], [rule])
    assert found.hi == pytest.approx(5.0)
    assert "low: below 5" in histogram_svg(found)


def test_names_are_text_in_a_chart():
    """A column's or rule's name cannot be markup."""
    svg = histogram_svg(
        Histogram("<b>", 0.0, 1.0, (1, 2), (0, 1), 3, 0, False, (Threshold("<i>", 0.5, "below"),))
    )
    assert [svg.count(text) for text in ("<b>", "<i>")] == [0, 0]
    assert "&lt;b&gt;" in svg
    assert "&lt;i&gt;" in svg


@given(lo=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(lo, span):
    """A handful of equally spaced numbers between the ends."""
    found = ticks(lo, lo + span, whole=False)
    assert 2 <= len(found) <= 9
    assert all(lo - 1e-6 * span <= t <= lo + span * (1 + 1e-6) + 1e-9 for t in found)
