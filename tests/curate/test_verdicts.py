"""Fractions: exact, or DataComp's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.evidence import columns_read, gathered, parts_to_judge
from curate.filter import filter_pairs
from curate.query import query
from curate.verdicts import Cut, cuts_of, kept_count
from schemas.configs import Rule
from tests.scored import pool, row, uid
from tests.tiny import Row, by_url, tiny_dataset

SCORE = "scores_s__clip_score"


def top(fraction: float, compat: bool = True, **more: object) -> Rule:
    how = {"name": "low", "value": SCORE, "keep_top": fraction, "datacomp_compat": compat}
    return Rule.model_validate(how | more)


def kept(data: Dataset, rules: list[Rule]) -> set[str]:
    filter_pairs(data, rules)
    return set(query(data, "SELECT uid FROM decisions_quality WHERE keep")["uid"].to_pylist())


def cut(data: Dataset, rule: Rule) -> Cut:
    with gathered(data, [rule], columns_read(data, [rule]), parts_to_judge(data)) as evidence:
        return cuts_of(evidence, [rule])[rule.name]


def theirs(scores: dict[int, float], fraction: float) -> set[str]:
    """DataComp's rule as plain Python: the score at place int(N f), descending, and all above."""
    place = int(len(scores) * fraction)
    if place >= len(scores):
        return {uid(i) for i in scores}
    threshold = sorted(scores.values(), reverse=True)[place]
    return {uid(i) for i, score in scores.items() if score >= threshold}


def test_kept_count_reads_a_fraction_as_written():
    """floor(10 * 0.3) is 3, although 10 * 0.3 in binary need not be."""
    assert [kept_count(n, 0.3) for n in (0, 1, 3, 4, 10, 100)] == [0, 0, 0, 1, 3, 30]
    assert kept_count(1000, 0.29) == 290  # 1000 * 0.29 == 290.0 - 6e-14
    assert kept_count(7, 1.0) == 7


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99, 1.0])
def test_datacomp_compat_keeps_one_more_and_all_ties(tmp_path: Path, fraction: float):
    """int(N f) + 1 pairs and whoever shares the last value; at 1.0, their index error, all."""
    scores = {i: [0.5, 0.25, 0.75, 0.25, 0.25, 1.0, -0.5, 0.75, 0.0, 0.125][i] for i in range(10)}
    data = pool(str(tmp_path), scores, parts=2)
    assert kept(data, [top(fraction)]) == theirs(scores, fraction)


def test_datacomp_compat_and_the_exact_fraction_differ_by_ties(tmp_path: Path):
    """Of ten pairs 0.3 is three by default, four of distinct values in theirs, more with ties."""
    distinct = pool(str(tmp_path / "a"), {i: i / 10 for i in range(10)})
    assert len(kept(distinct, [top(0.3, compat=False)])) == 3
    assert kept(distinct, [top(0.3)]) == {uid(i) for i in (6, 7, 8, 9)}
    ties = pool(str(tmp_path / "b"), {i: float(i >= 5) for i in range(10)})
    assert len(kept(ties, [top(0.3, compat=False)])) == 3
    assert kept(ties, [top(0.3)]) == {uid(i) for i in range(5, 10)}


def test_datacomp_compat_multiplies_as_they_do(tmp_path: Path):
    """int(100 * 0.29) is 28 in floating point; the place is theirs, not the exact 29."""
    scores = {i: i / 128 for i in range(100)}
    data = pool(str(tmp_path), scores)
    assert len(kept(data, [top(0.29)])) == 29 == len(theirs(scores, 0.29))
    assert len(kept(data, [top(0.29, compat=False)])) == 29
    assert cut(data, top(0.29)) == (71 / 128, None)


def test_unknown_values_neither_count_nor_stay(tmp_path: Path):
    """N is the known values, in both ways; at 1.0 a pair without a score is out, too."""
    data = pool(str(tmp_path), {0: 0.5, 1: None, 2: math.nan, 3: 0.25})
    assert kept(data, [top(0.5)]) == {uid(0), uid(3)}
    assert kept(data, [top(1.0)]) == {uid(0), uid(3)}
    assert kept(pool(str(tmp_path / "none"), {0: None}), [top(0.5)]) == set()


def test_datacomp_compat_among_survivors(tmp_path: Path):
    """The place counts those that the rules before let pass."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    before = Rule(name="high", value=SCORE, drop_above=0.5)
    assert kept(data, [before, top(0.4, of="survivors")]) == {uid(i) for i in (2, 3, 4)}


# DataComp, table 16: fraction -> threshold on CommonPool, without a language filter
TABLE_16 = {
    "b32": {
        **{0.01: 0.384, 0.03: 0.358, 0.1: 0.325, 0.2: 0.300, 0.3: 0.281},
        **{0.4: 0.263, 0.5: 0.247, 0.75: 0.215, 0.9: 0.193},
    },
    "l14": {
        **{0.01: 0.364, 0.03: 0.334, 0.1: 0.295, 0.2: 0.266, 0.3: 0.243},
        **{0.4: 0.222, 0.5: 0.203, 0.75: 0.160, 0.9: 0.129},
    },
}


@pytest.mark.parametrize("model", sorted(TABLE_16))
def test_the_thresholds_of_datacomps_table_16(tmp_path: Path, model: str):
    """On scores with the paper's quantiles every published fraction cuts at its threshold."""
    points = {0.0: 0.5, **TABLE_16[model], 1.0: 0.0}
    n = 2000
    places = (np.arange(n) + 0.0) / n
    scores = np.interp(places, list(points), list(points.values()))
    rows = [row(i, scores={"s": {"clip_score": float(score)}}) for i, score in enumerate(scores)]
    data = tiny_dataset(str(tmp_path), rows, by_url(2))
    for fraction, threshold in TABLE_16[model].items():
        found = cut(data, top(fraction))
        assert found is not None
        assert round(found[0], 3) == threshold


def test_a_rule_named_twice_in_other_recipes_is_cut_by_its_own(tmp_path: Path):
    """Two fractions of one column are two cuts, read from one column of evidence."""
    data = pool(str(tmp_path), {i: i / 8 for i in range(8)})
    rules = [top(0.5, compat=False), top(0.25, compat=False, name="lower")]
    with gathered(data, rules, columns_read(data, rules), parts_to_judge(data)) as evidence:
        assert list(evidence.columns.values()) == ["x0"]
        assert cuts_of(evidence, rules) == {"low": (4 / 8, uid(4)), "lower": (6 / 8, uid(6))}


def test_ties_end_at_a_uid(tmp_path: Path):
    """Of equal values the lowest uids stay."""
    rows = [Row(f"http://h/{i}.jpg", scores={"s": {"clip_score": 0.5}}) for i in range(9)]
    data = tiny_dataset(str(tmp_path), rows, 3)
    lowest = sorted(r.uid for r in rows)[:4]
    assert kept(data, [top(0.5, compat=False)]) == set(lowest)
    assert cut(data, top(0.5, compat=False)) == (0.5, lowest[-1])
