"""What if: the counts of a real decision, without making it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.what_if import changed, decided, told, what_if
from schemas.configs import Rule
from tests.scored import pool, uid
from tests.tiny import Row, tiny_dataset, whole

SCORE = "scores_s__clip_score"
LOW = Rule(name="low", value=SCORE, drop_below=0.25)


def kept(data: Dataset) -> set[str]:
    return {row["uid"] for row in whole(data, "decisions_quality") if row["keep"]}


def files(data: Dataset) -> dict[str, object]:
    return {f: data.fs.modified(f) for f in data.fs.find(data.path)}


# ------------------------------------------------------------------------------ counts


ways = st.one_of(
    st.tuples(st.just("drop_below"), st.sampled_from([-1.0, 0.0, 0.3, 0.5, 2.0])),
    st.tuples(st.just("drop_above"), st.sampled_from([-1.0, 0.0, 0.3, 0.5, 2.0])),
    st.tuples(st.just("keep_top"), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])),
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.none() | st.sampled_from([0.0, 0.5, 0.25, 1.0, -1.0]), min_size=1, max_size=20),
    st.lists(ways, min_size=4, max_size=4),
    st.lists(st.sampled_from(["pool", "survivors"]), min_size=4, max_size=4),
    st.booleans(),
)
def test_the_counts_are_those_of_a_real_decision(scores, how, of, compat):
    """Whatever the rules: kept today, kept then, both, only one, and each rule's failures."""
    made = [
        Rule.model_validate(
            {"name": name, "value": SCORE, way: limit, "of": whose}
            | ({"datacomp_compat": compat} if way == "keep_top" else {})
        )
        for name, (way, limit), whose in zip("abab", how, of, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = pool(folder, dict(enumerate(scores)), parts=2)
        filter_pairs(data, made[:2])
        today, before = kept(data), files(data)
        found = what_if(data, made[2:])
        assert files(data) == before
        filter_pairs(data, made[2:])
        then, failed = kept(data), whole(data, "rules_failed")
        assert (found.today, found.then) == (len(today), len(then))
        assert (found.both, found.only_today) == (len(today & then), len(today - then))
        assert (found.only_then, found.downloaded) == (len(then - today), len(scores))
        for count in found.rules:
            reasons = [row["rule"] for row in failed]
            assert count.unknown == reasons.count(f"unknown {count.name}")
            assert count.then == reasons.count(count.name) + count.unknown


def test_today_is_what_was_decided_and_not_the_recipe(tmp_path: Path):
    """A recipe that was edited since is compared with the decision that stands."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    filter_pairs(data, [LOW])
    found = what_if(data, [Rule(name="high", value=SCORE, drop_above=0.5)])
    assert (found.today, found.then, found.both) == (6, 5, 3)
    counts = {c.name: (c.today, c.then) for c in found.rules}
    assert counts == {"high": (None, 3), "low": (2, None)}


def test_before_any_decision_today_is_the_recipe(tmp_path: Path):
    """Nothing is decided, so nothing differs."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    found = what_if(data, [LOW])
    assert (found.today, found.then, found.lines) == (6, 6, ())
    assert "the rules are those of today" in told(found)


# ------------------------------------------------------------------------------ examples


def test_examples_are_the_pairs_next_to_the_line(tmp_path: Path):
    """Nearest first, on both sides; a pair that another rule drops is on neither."""
    data = pool(str(tmp_path), {i: i / 64 for i in range(64)}, parts=3)
    cap = Rule(name="cap", drop_if=f"{SCORE} = {33 / 64}")
    filter_pairs(data, [LOW, cap])
    found = what_if(data, changed([LOW, cap], ["low.drop_below=0.5"]), count=3)
    (line,) = found.lines
    assert [p["uid"] for p in line.kept] == [uid(32), uid(34), uid(35)]
    assert [p["uid"] for p in line.dropped] == [uid(31), uid(30), uid(29)]
    assert line.kept[0] == {
        "value": "0.5",
        "uid": uid(32),
        "caption": "caption 32",
        "url": "http://h/32.jpg",
    }
    assert len(what_if(data, changed([LOW], ["low.drop_below=0.5"])).lines[0].kept) == 10


def test_the_line_of_an_upper_bound_is_above(tmp_path: Path):
    """drop_above: the highest that stay, the lowest that go."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    filter_pairs(data, [LOW])
    (line,) = what_if(data, changed([LOW], ["low.drop_above=0.5"]), count=2).lines
    assert [p["uid"] for p in line.kept] == [uid(4), uid(3)]
    assert [p["uid"] for p in line.dropped] == [uid(5), uid(6)]


def test_a_predicate_has_examples_of_both_kinds(tmp_path: Path):
    """No value says who is near: some of each, the same at every run."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    rule = Rule(name="odd", drop_if=f"{SCORE} > 0.5")
    filter_pairs(data, [])
    (line,) = what_if(data, [rule]).lines
    assert {p["uid"] for p in line.dropped} == {uid(i) for i in (5, 6, 7)}
    assert len(line.kept) == 5
    assert what_if(data, [rule]).lines == (line,)


def test_strangers_words_cannot_steer_a_terminal(tmp_path: Path):
    """Control and direction characters of captions and URLs are written out."""
    rows = [
        Row("http://h/\u202egpj.exe", "red\x1b[31m\nalert", scores={"s": {"clip_score": 0.5}}),
        Row("http://h/2", "م" * 10_000_000, scores={"s": {"clip_score": 0.5}}),
        Row("http://h/3", None, scores={"s": {"clip_score": 0.125}}),
    ]
    data = tiny_dataset(str(tmp_path), rows)
    text = told(what_if(data, [LOW])) + told(what_if(data, changed([LOW], ["low.drop_below=0.4"])))
    filter_pairs(data, [])
    text += told(what_if(data, [LOW]))
    assert "\\x1b[31m\\nalert" in text
    assert "\\u202e" in text
    assert not set("\x1b\u202e") & set(text)
    assert max(map(len, text.splitlines())) < 200
    assert "just dropped by it alone" in text


def test_the_text_has_the_counts(tmp_path: Path):
    """Counts with their share, each rule today and then."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    filter_pairs(data, [LOW])
    text = told(what_if(data, changed([LOW], ["low.drop_below=0.5"])))
    lines = [line.split() for line in text.splitlines()]
    assert ["kept", "today", "6", "75.0", "%"] in lines
    assert ["kept", "then", "4", "50.0", "%"] in lines
    assert ["low", "2", "4", "0"] in lines
    assert "low drops: scores_s__clip_score below 0.5" in text


def test_a_decision_is_told_by_reason(tmp_path: Path):
    """How many stay, and how many go for which reason."""
    data = pool(str(tmp_path), {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.1, 4: 0.1, 5: None})
    filter_pairs(data, [LOW])
    lines = [line.split() for line in decided(data).splitlines()]
    assert lines[2:] == [["(kept)", "3"], ["low", "2"], ["unknown", "low", "1"]]


# ------------------------------------------------------------------------------ --set


def test_a_change_replaces_one_way_by_another(tmp_path: Path):
    """drop_below takes the place of keep_top; other knobs stay as they are."""
    rule = Rule(
        name="low", value=SCORE, keep_top=0.5, datacomp_compat=True, of="survivors", fault="image"
    )
    (found,) = changed([rule], ["low.drop_below=3e-1"])
    assert found == Rule(name="low", value=SCORE, drop_below=0.3, of="survivors", fault="image")
    assert changed([rule, LOW.model_copy(update={"name": "b"})], ["b.of=survivors"])[0] == rule
    assert changed([LOW], ["low.keep_top=0.3", "low.datacomp_compat=true"])[0].datacomp_compat


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("low", "write RULE.KNOB=VALUE, such as low_clip.drop_below=0.3"),
        ("high.drop_below=1", "the recipe has no rule 'high', only low"),
        ("low.threshold=1", "a rule has no knob 'threshold', only value, blend, drop_below"),
        ("low.name=b", "a rule has no knob 'name'"),
        ("low.drop_below=much", "drop_below: Input should be a valid number.*much"),
        ("low.keep_top=2", "keep_top: Input should be less than or equal to 1"),
        ("low.drop_if=x > 1", "drop_if names its columns itself"),
    ],
)
def test_a_change_that_cannot_be_is_explained(text: str, said: str):
    """The error has the text, what is wrong in it, and what there is."""
    with pytest.raises(ValueError, match=said):
        changed([LOW], [text])
