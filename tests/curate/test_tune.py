"""Tune: a threshold that keeps what was asked for, by the decision's own count."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.tune import shortest, told, tune
from schemas.configs import Rule
from tests.scored import pool
from tests.tiny import whole

SCORE = "scores_s__clip_score"
LOW = Rule(name="low", value=SCORE, drop_below=0.25)
ODD = Rule(name="odd", drop_if=f"{SCORE} > 0.9")


def kept(data: Dataset, rules: list[Rule]) -> int:
    filter_pairs(data, rules)
    return sum(row["keep"] for row in whole(data, "decisions_quality"))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.none() | st.floats(-1, 1, width=32) | st.sampled_from([0.5, 0.25]),
        min_size=4,
        max_size=20,
    ).filter(lambda scores: sum(s is not None for s in scores) > 3),
    st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    st.sampled_from(["drop_below", "drop_above", "keep_top"]),
)
def test_a_suggestion_is_what_a_decision_then_keeps(scores, keep, way):
    """At least the fraction, more only by ties of the last value, and exactly as counted."""
    rule = Rule.model_validate({"name": "low", "value": SCORE, way: 0.5})
    known = sorted((s for s in scores if s is not None), reverse=way != "drop_above")
    with tempfile.TemporaryDirectory() as folder:
        data = pool(folder, dict(enumerate(scores)), parts=2)
        (found,) = tune(data, [rule], "low", [keep]).suggestions
        last = known[int(len(known) * keep) - 1]
        ties = sum(s <= last if way == "drop_above" else s >= last for s in known)
        assert found.kept == ties >= int(len(known) * keep)
        assert found.recipe == kept(data, [found.rule]) == ties


def test_the_pool_the_survivors_and_the_recipe(tmp_path: Path):
    """A half of all, of those that the rule before let pass, or of everything kept at the end."""
    data = pool(str(tmp_path), {i: i / 16 for i in range(16)}, failed=[0])
    rules = [ODD, LOW]  # odd drops 15
    found = tune(data, rules, "low", [0.4])
    assert (found.n, found.suggestions[0].kept, found.suggestions[0].recipe) == (15, 6, 5)
    found = tune(data, rules, "low", [0.5], "survivors")
    assert (found.n, found.suggestions[0].kept, found.suggestions[0].recipe) == (14, 7, 7)
    found = tune(data, rules, "low", [0.4], "recipe")
    assert (found.n, found.suggestions[0].recipe) == (15, 6)
    assert kept(data, [ODD, found.suggestions[0].rule]) == 6
    assert found.quantiles[4] == 7 / 16


def test_a_threshold_is_written_as_short_as_it_may_be():
    """Above the value that has to go, not above the one that stays; never rounded past either."""
    assert shortest(0.27, 0.2813456) == 0.28
    assert shortest(0.2812, 0.2813456) == 0.2813
    assert shortest(0.1, 0.699999988079071) == 0.6
    assert shortest(0.69999998, 0.699999988079071) == 0.699999988
    assert shortest(-0.5, -0.25) == -0.3
    assert shortest(float("-inf"), 12.5) == 12.0
    assert shortest(0.1, 0.1 + 2**-56) == 0.1 + 2**-56


def test_the_text_has_thresholds_counts_and_quantiles(tmp_path: Path):
    """A line per fraction, and the values at the usual quantiles."""
    data = pool(str(tmp_path), {i: i / 16 for i in range(16)})
    lines = [line.split() for line in told(tune(data, [LOW], "low", [0.5, 0.25])).splitlines()]
    assert ["keep", "drop_below", "kept", "share", "by", "the", "recipe"] in lines
    assert ["0.5", "0.5", "8", "50.0", "%", "8"] in lines
    assert ["0.25", "0.7", "4", "25.0", "%", "4"] in lines
    assert ["0.5", "0.4375"] in lines


@pytest.mark.parametrize(
    ("name", "keep", "of", "said"),
    [
        ("high", 0.5, None, "no rule 'high', only odd, low, later"),
        ("odd", 0.5, None, "rule 'odd' is a predicate"),
        ("low", 0.0, None, "--keep 0: a fraction is above 0"),
        ("low", 1.5, None, "--keep 1.5: a fraction is above 0 and at most 1"),
        ("low", 0.001, None, "--keep 0.001 is 0 pairs; the rule 'low' can keep 1 to 15"),
        ("low", 0.5, "recipe", "what 'later' keeps depends on what 'low' lets pass"),
    ],
)
def test_what_cannot_be_tuned_is_explained(tmp_path: Path, name, keep, of, said):
    """An unknown rule, a predicate, a fraction of nobody, a rule that others depend on."""
    data = pool(str(tmp_path), {i: i / 16 for i in range(16)} | {0: None})
    later = Rule(name="later", value=SCORE, keep_top=0.5, of="survivors")
    with pytest.raises(ValueError, match=said):
        tune(data, [ODD, LOW, later], name, [keep], of)


def test_a_recipe_cannot_keep_what_other_rules_drop(tmp_path: Path):
    """The error says how many there are."""
    data = pool(str(tmp_path), {i: i / 16 for i in range(16)})
    half = Rule(name="half", value=SCORE, drop_below=0.5)
    with pytest.raises(ValueError, match="is 12 pairs; the rule 'low' can keep 1 to 8 here"):
        tune(data, [half, LOW], "low", [0.75], "recipe")
