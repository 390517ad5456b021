"""A rule over a blend of columns: each from 0 to 1 by the pool's smallest and largest value."""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate import engine, evidence
from curate.dataset import Dataset
from curate.evidence import columns_read, gathered, parts_to_judge
from curate.filter import filter_pairs
from curate.query import query
from curate.reporting.text import condition, rules_of
from curate.tune import tune
from curate.what_if import what_if
from schemas.configs import Rule, Workers
from tests.scored import row, scored, uid
from tests.tiny import add_table, by_url, samples_of, tiny_dataset, urls_of

S, T = "scores_s__clip_score", "scores_t__clip_score"
Pair = tuple[float | None, float | None]


def blend(name: str = "fused", s: float = 0.5, t: float = 0.5, **how: object) -> Rule:
    said = {"name": name, "blend": {S: s, T: t}} | (how or {"keep_top": 0.2})
    return Rule.model_validate(said)


def pool(root: str, pairs: list[Pair], parts: int = 1) -> Dataset:
    rows = [
        row(i, scores={"s": {"clip_score": s}, "t": {"clip_score": t}})
        for i, (s, t) in enumerate(pairs)
    ]
    return tiny_dataset(root, rows, by_url(parts))


def kept(data: Dataset) -> set[str]:
    return set(query(data, "SELECT uid FROM decisions_quality WHERE keep")["uid"].to_pylist())


def by_numpy(pairs: list[Pair], weights: tuple[float, float]) -> list[float | None]:
    """The blend of each pair, None where one of its values is unknown."""
    total = np.zeros(len(pairs))
    for side, weight in enumerate(weights):
        column = np.array([p[side] for p in pairs], np.float32).astype(np.float64)
        known = column[np.isfinite(column)]
        span = known.max() - known.min() if len(known) else 0
        total += weight * ((column - known.min()) / span if span else column * 0)
    return [None if np.isnan(value) else float(value) for value in total]


values = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 3.0])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(values, values), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    st.integers(1, 3),
)
def test_a_fraction_of_a_blend_is_exact_whatever_the_parts(pairs, fraction, parts):
    """floor(N f) of the N pairs that have both values, the highest first, ties by uid."""
    known = sorted((-b, uid(i)) for i, b in enumerate(by_numpy(pairs, (0.5, 0.5))) if b is not None)
    wanted = {u for _, u in known[: math.floor(len(known) * Fraction(str(fraction)))]}
    with tempfile.TemporaryDirectory() as folder:
        data = pool(folder, pairs, parts)
        filter_pairs(data, [blend(keep_top=fraction)])
        assert kept(data) == wanted


def test_weights_and_scales_decide(tmp_path: Path):
    """A column of large numbers does not outvote one of small ones; a weight does."""
    pairs: list[Pair] = [(0.0, 1000.0), (0.1, 900.0), (0.2, 0.0), (0.18, 600.0)]
    data = pool(str(tmp_path), pairs)
    for s, t in ((0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.9, 0.1)):
        filter_pairs(data, [blend(s=s, t=t, keep_top=0.25)])
        assert kept(data) == {uid(int(np.argmax(np.array(by_numpy(pairs, (s, t))))))}


def test_a_threshold_is_of_the_blend(tmp_path: Path):
    """drop_below counts from 0 to the sum of the weights; the value seen is the blend."""
    data = pool(str(tmp_path), [(0.0, 0.0), (1.0, 4.0), (0.5, 3.0), (None, 4.0)])
    filter_pairs(data, [blend(drop_below=0.625)])
    assert kept(data) == {uid(1), uid(2)}
    rows = query(data, "SELECT uid, rule, value FROM rules_failed").to_pylist()
    assert {r["uid"]: (r["rule"], r["value"]) for r in rows} == {
        uid(0): ("fused", "0.0"),
        uid(3): ("unknown fused", None),
    }


def test_scales_are_of_the_whole_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever holds some parts alone is told the pool's scales, and decides as the whole does."""
    pairs: list[Pair] = [(i / 16, float(i % 5)) for i in range(16)]
    data = pool(str(tmp_path), pairs, parts=4)
    rule = blend(drop_below=0.5)
    columns = columns_read(data, [rule])
    with gathered(data, [rule], columns, parts_to_judge(data)) as whole:
        scales = whole.scales
    assert scales == {S: (0.0, 15 / 16), T: (0.0, 4.0)}
    seen: dict[str, float] = {}
    for part in data.parts("urls"):
        with gathered(data, [rule], columns, [part], scales=scales) as some:
            rows = some.ask(f"SELECT uid, {some.column(rule)} AS v FROM evidence").to_pylist()
            seen |= {r["uid"]: r["v"] for r in rows}
    expected = by_numpy(pairs, (0.5, 0.5))
    assert seen == {uid(i): pytest.approx(v) for i, v in enumerate(expected)}
    monkeypatch.setattr(evidence, "CHUNK_ROWS", 1)
    filter_pairs(data, [rule])
    assert kept(data) == {uid(i) for i, v in enumerate(expected) if v is not None and v >= 0.5}


@pytest.mark.slow
def test_ray_workers_decide_by_the_pools_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Workers that gather some parts each decide as one process does."""
    pairs: list[Pair] = [(i / 16, float(i % 5)) for i in range(16)]
    here, there = (pool(str(tmp_path / name), pairs, parts=4) for name in ("here", "there"))
    filter_pairs(here, [blend(drop_below=0.5)])
    monkeypatch.setattr(evidence, "CHUNK_ROWS", 1)
    monkeypatch.setattr(engine, "WORTH_WORKERS", 1)
    filter_pairs(there, [blend(drop_below=0.5)], Workers(count=1))
    assert kept(here) == kept(there)
    assert 0 < len(kept(there)) < 16


def test_a_new_extreme_decides_anew(tmp_path: Path):
    """The scales are part of what the decisions were made with; the same ones publish nothing, a
    pair that is better than all before moves the others down."""
    data = pool(str(tmp_path), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
    rule = blend(drop_below=0.5)
    filter_pairs(data, [rule])
    at = data.at
    filter_pairs(data, [rule])
    assert (data.at, kept(data)) == (at, {uid(1), uid(2)})
    assert rules_of(data) == (rule,)
    add_table(data, "urls", {1: urls_of([row(3)])}, [])
    add_table(data, "samples", {1: samples_of([row(3)])}, ["urls"])
    best = scored([{"uid": uid(3), "caption_id": uid(3), "clip_score": 1.5}])
    for table in ("scores_s", "scores_t"):
        columns = data.read(table, 0).column_names
        add_table(data, table, {1: best.select(columns)}, ["urls", "samples"])
    filter_pairs(data, [rule])
    assert kept(data) == {uid(2), uid(3)}


def test_infinite_values_stretch_no_scale(tmp_path: Path):
    """An infinity is above all; it does not make the others equal. NaN is unknown."""
    pairs: list[Pair] = [(math.inf, 1.0), (1.0, 0.5), (0.0, 1.0), (math.nan, 1.0)]
    data = pool(str(tmp_path), pairs)
    filter_pairs(data, [blend(keep_top=0.34)])
    assert kept(data) == {uid(0)}
    filter_pairs(data, [blend(keep_top=0.67, s=0.9, t=0.1)])
    assert kept(data) == {uid(0), uid(1)}


def test_one_value_alone_counts_nothing(tmp_path: Path):
    """A constant column is 0 for all, and its unknowns stay unknown."""
    data = pool(str(tmp_path), [(0.5, 1.0), (0.5, 2.0), (None, 3.0)])
    filter_pairs(data, [blend(keep_top=0.5)])
    assert kept(data) == {uid(1)}


def test_what_if_and_tune_speak_of_blends(tmp_path: Path):
    """Both use the scales of the pool; the words name the columns and their weights."""
    data = pool(str(tmp_path), [(i / 4, i / 2) for i in range(5)])
    rule = blend(keep_top=0.4)
    filter_pairs(data, [rule])
    found = what_if(data, [blend(keep_top=0.6)])
    assert (found.today, found.then, found.both) == (2, 3, 2)
    assert [float(p["value"]) for p in found.lines[0].kept] == [0.5, 0.75, 1.0]
    tuned = tune(data, [rule], "fused", [0.4])
    assert tuned.suggestions[0].kept == 2
    assert tuned.suggestions[0].rule.blend == rule.blend
    assert condition(rule) == (
        f"0.5 * minmax({S}) + 0.5 * minmax({T}) not in the top 40 % of the pool"
    )


@pytest.mark.parametrize(
    "how",
    [
        {"value": S, "blend": {S: 1}, "keep_top": 0.2},
        {"blend": {}, "keep_top": 0.2},
        {"blend": {S: 1}, "drop_if": "true"},
        {"keep_top": 0.2},
    ],
)
def test_a_rule_looks_at_one_thing(how: dict):
    """A column or a blend of some, never both or neither."""
    with pytest.raises(ValidationError):
        Rule.model_validate({"name": "odd"} | how)


def test_a_column_that_is_not_there_is_named(tmp_path: Path):
    """As for every rule, the error has the rule's name and the column."""
    data = pool(str(tmp_path), [(0.5, 0.5)])
    rule = Rule(name="fused", blend={S: 0.5, "scores_nope__x": 0.5}, keep_top=0.2)
    with pytest.raises(ValueError, match=r"the rules fused: .*scores_nope__x"):
        filter_pairs(data, [rule])
