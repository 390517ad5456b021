"""Rules: exact, order-free, and never kind to what they do not know."""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.query import query
from schemas.configs import Rule
from tests.scored import pool, uid
from tests.tiny import Row, add_table, samples_of, urls_of

SCORE = "scores_s__clip_score"


def rule(name: str = "low", **how: object) -> Rule:
    return Rule.model_validate({"name": name, "value": SCORE} | how)


def reasons(data: Dataset) -> dict[str, str | None]:
    rows = query(data, "SELECT uid, keep, reason FROM decisions_quality").to_pylist()
    assert all(r["keep"] == (r["reason"] is None) for r in rows)
    return {r["uid"]: r["reason"] for r in rows}


def test_a_threshold_drops_what_lies_below_it(tmp_path: Path):
    """A value equal to the threshold stays; the reason is the rule's name."""
    data = pool(str(tmp_path), {0: 0.1, 1: 0.28, 2: 0.5})
    filter_pairs(data, [rule(drop_below=0.25)])
    assert reasons(data) == {uid(0): "low", uid(1): None, uid(2): None}
    filter_pairs(data, [rule(drop_above=0.25)])
    assert reasons(data) == {uid(0): None, uid(1): "low", uid(2): "low"}


@pytest.mark.parametrize("how", [{"drop_below": -9}, {"drop_above": 9}, {"keep_top": 1.0}])
def test_a_pair_without_a_score_never_passes(tmp_path: Path, how: dict):
    """Null, NaN and a missing row are a state of their own, not a keep."""
    data = pool(str(tmp_path), {0: 0.5, 1: None, 2: math.nan, 3: 0.5}, unscored=[3])
    filter_pairs(data, [rule(**how)])
    assert reasons(data) == {uid(0): None} | dict.fromkeys(map(uid, (1, 2, 3)), "unknown low")


def test_a_predicate_over_unknown_values_drops_as_unknown(tmp_path: Path):
    """drop_if is three-valued: true drops, null is unknown, false keeps."""
    data = pool(str(tmp_path), {0: 0.1, 1: None, 2: 0.9})
    filter_pairs(data, [Rule(name="odd", drop_if=f"{SCORE} < 0.5")])
    assert reasons(data) == {uid(0): "odd", uid(1): "unknown odd", uid(2): None}


def test_failed_downloads_are_not_judged(tmp_path: Path):
    """They have failed before; the decisions view gives the earlier reason."""
    data = pool(str(tmp_path), {0: 0.1, 1: 0.9}, failed=[1])
    filter_pairs(data, [rule(drop_below=0.5)])
    assert reasons(data) == {uid(0): "low"}
    rows = query(data, "SELECT reason, count(*) n FROM decisions GROUP BY 1 ORDER BY 1").to_pylist()
    assert rows == [{"reason": "failed_to_download", "n": 1}, {"reason": "low", "n": 1}]


def test_every_failing_rule_is_recorded_and_the_first_is_the_reason(tmp_path: Path):
    """decisions_quality has one reason a pair, rules_failed all of them with the value seen."""
    data = pool(str(tmp_path), {0: 0.125, 1: 0.5})
    filter_pairs(data, [rule("a", drop_below=0.4), rule("b", drop_below=0.2)])
    assert reasons(data) == {uid(0): "a", uid(1): None}
    failed = query(data, "SELECT * FROM rules_failed ORDER BY rule").to_pylist()
    assert failed == [{"uid": uid(0), "rule": r, "value": "0.125"} for r in ("a", "b")]


def test_of_survivors_counts_only_those_that_passed_before(tmp_path: Path):
    """keep_top 0.5 of four survivors is two, of the pool of six three."""
    scores = {i: i / 10 for i in range(6)}
    before = Rule(name="first", drop_if=f"{SCORE} > 0.35")
    for of, kept in (("survivors", [2, 3]), ("pool", [3])):
        data = pool(str(tmp_path / of), scores)
        filter_pairs(data, [before, rule(keep_top=0.5, of=of)])
        assert [i for i in scores if reasons(data)[uid(i)] is None] == kept


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.none() | st.sampled_from([0.0, 0.5, 0.5, 1.0, -1.0]), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
    st.integers(1, 3),
)
def test_a_fraction_is_exact_with_ties_by_uid_whatever_the_parts(scores, fraction, parts):
    """keep_top keeps exactly floor(N f) of the N scored pairs: the plain reference says which."""
    known = sorted((-s, uid(i)) for i, s in enumerate(scores) if s is not None)
    wanted = {u for _, u in known[: math.floor(len(known) * Fraction(str(fraction)))]}
    with tempfile.TemporaryDirectory() as folder:
        data = pool(folder, dict(enumerate(scores)), parts=parts)
        filter_pairs(data, [rule(keep_top=fraction)])
        assert {u for u, reason in reasons(data).items() if reason is None} == wanted


def test_deciding_again_changes_nothing_and_another_threshold_only_the_decisions(tmp_path: Path):
    """The same rules publish no version; new ones write decisions and touch no score."""
    data = pool(str(tmp_path), {0: 0.1, 1: 0.9})
    filter_pairs(data, [rule(drop_below=0.5)])
    version, files = data.at, data.files("scores_s")
    filter_pairs(data, [rule(drop_below=0.5)])
    assert data.at == version
    filter_pairs(data, [rule(drop_below=0.95)])
    assert data.at == version + 1
    assert data.files("scores_s") == files
    assert set(reasons(data).values()) == {"low"}


def test_a_rule_over_a_column_that_is_not_there_is_named(tmp_path: Path):
    """The error has the rule's name and the column."""
    data = pool(str(tmp_path), {0: 0.1})
    with pytest.raises(ValueError, match=r"the rules aesthetic: .*scores_nope__x"):
        filter_pairs(data, [Rule(name="aesthetic", value="scores_nope__x", drop_below=1)])


def test_no_rules_keep_everything(tmp_path: Path):
    """A recipe without rules decides, too: all that was downloaded stays."""
    data = pool(str(tmp_path), {0: 0.1, 1: None})
    filter_pairs(data, [])
    assert reasons(data) == {uid(0): None, uid(1): None}


def test_a_table_that_lacks_a_part_leaves_its_pairs_unknown(tmp_path: Path):
    """Scores that came with one list only: the other list's pairs are out, not undecided."""
    data = pool(str(tmp_path), {0: 0.9, 1: 0.9})
    later = Row("http://h/new.jpg", "new")
    add_table(data, "urls", {0: data.read("urls", 0), 1: urls_of([later])}, [])
    add_table(data, "samples", {0: data.read("samples", 0), 1: samples_of([later])}, ["urls"])
    filter_pairs(data, [rule(drop_below=0.1)])
    assert reasons(data) == {uid(0): None, uid(1): None, later.uid: "unknown low"}


def test_a_column_that_only_one_list_has_is_unknown_in_the_other(tmp_path: Path):
    """Extra columns differ from batch to batch; a rule over one of them still runs."""
    data = pool(str(tmp_path), {0: 0.9})
    small, large = Row("http://h/s.jpg", "small"), Row("http://h/l.jpg", "large")
    later = sorted([small, large], key=lambda r: r.uid)
    widths = pa.array([10 if r is small else 500 for r in later], pa.int64())
    second = urls_of(later).append_column("in_width", widths)
    add_table(data, "urls", {0: data.read("urls", 0), 1: second}, [])
    parts = {0: data.read("samples", 0), 1: samples_of(later)}
    add_table(data, "samples", parts, ["urls"])
    filter_pairs(data, [Rule(name="small", drop_if="urls__in_width < 100")])
    assert reasons(data) == {uid(0): "unknown small", small.uid: "small", large.uid: None}


def test_a_value_that_an_expression_cannot_take_costs_its_pair(tmp_path: Path):
    """One caption that is no number is unknown; the others are judged."""
    data = pool(str(tmp_path), {0: 0.9, 1: 0.9})
    predicate = "CAST(replace(urls__caption, 'caption 0', '7') AS INTEGER) < 5 -- a comment"
    filter_pairs(data, [Rule(name="odd", drop_if=predicate)])
    assert reasons(data) == {uid(0): None, uid(1): "unknown odd"}


def test_rules_may_have_any_name(tmp_path: Path):
    """A rule called uid or value does not shadow a column."""
    data = pool(str(tmp_path), {0: 0.1, 1: 0.9, 2: math.inf})
    filter_pairs(data, [rule("uid", drop_below=0.5), rule("value", drop_above=math.inf)])
    assert reasons(data) == {uid(0): "uid", uid(1): None, uid(2): None}


@pytest.mark.parametrize("predicate", ["1 < (SELECT 2)", "count(*) OVER () > 1"])
def test_a_predicate_is_said_of_one_row(predicate: str):
    """What would look at other rows is refused when the recipe is read."""
    with pytest.raises(ValidationError, match="rule 'far': drop_if is said of one row"):
        Rule(name="far", drop_if=predicate)
