"""K-center: the plain traversal's order, its bound, and copies last."""

from __future__ import annotations

import uuid
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.selectors.kcenter import farthest_first
from schemas.configs import ChooseCaption, KCenterSelector
from schemas.tables import draw
from tests.tiny import Row, tiny_dataset, whole


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain(rows: np.ndarray, start: int, count: int) -> list[int]:
    """Farthest-first traversal, one pair at a time."""
    taken = [start]
    while len(taken) < count:
        nearest = (1 - rows @ rows[taken].T).min(axis=1)
        nearest[taken] = -np.inf
        taken.append(int(nearest.argmax()))
    return taken[:count]


@pytest.mark.parametrize("block", [1, 16, 5000])
@pytest.mark.parametrize("blobs", [1, 12])
def test_it_is_the_plain_traversal(block, blobs, monkeypatch):
    """Blocks of any size give the same pairs in the same order, on noise and on clusters."""
    monkeypatch.setattr("curate.selectors.kcenter.BLOCK", block)
    rng = np.random.default_rng(blobs)
    centers = rng.normal(size=(blobs, 16)) * (blobs > 1) * 4
    rows = unit(centers[rng.integers(blobs, size=600)] + rng.normal(size=(600, 16)))
    assert farthest_first(rows, 5, 200).tolist() == plain(rows, 5, 200)


def test_equally_far_pairs_go_by_number():
    """Eight axes, after the first: all are equally far, and come in their order."""
    rows = np.eye(8, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 3, 100):
            patch.setattr("curate.selectors.kcenter.BLOCK", block)
            assert farthest_first(rows, 4, 8).tolist() == [4, 0, 1, 2, 3, 5, 6, 7]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12))
def test_ties_across_blocks_go_by_number(seed, block):
    """Corners of a cube, whose cosines are exact and often equal: the plain order in any blocks."""
    corners = np.random.default_rng(seed).integers(0, 2, size=(40, 16)) * 2 - 1
    rows = np.unique(corners, axis=0).astype(np.float32) / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.selectors.kcenter.BLOCK", block)
        assert farthest_first(rows, 0, len(rows)).tolist() == plain(rows, 0, len(rows))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 10), st.integers(1, 4), st.integers(0, 999))
def test_its_radius_is_at_most_twice_the_best(n, count, seed):
    """No set of as many pairs covers all within less than half of the distance."""
    rows = unit(np.random.default_rng(seed).normal(size=(n, 3)))
    count = min(count, n)
    apart = np.sqrt(np.maximum(0, 2 - 2 * rows.astype(np.float64) @ rows.T))
    best = min(apart[list(s)].min(axis=0).max() for s in combinations(range(n), count))
    found = apart[farthest_first(rows, 0, count)].min(axis=0).max()
    assert found <= 2 * best + 1e-3  # a float32 cosine of 1 is off by 1e-7, the root of that 3e-4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=25), st.data())
def test_copies_come_after_all_that_differ(of, drawn):
    """Each direction once, the start's by the start, any other's by its first; then the rest."""
    start = drawn.draw(st.integers(0, len(of) - 1))
    rows = unit(np.random.default_rng(0).normal(size=(7, 3)))[of]
    found = farthest_first(rows, start, len(of)).tolist()
    distinct = len(set(of))
    first = [start if of[start] == k else of.index(k) for k in set(of)]
    assert found[0] == start
    assert sorted(found[:distinct]) == sorted(first)
    assert found[distinct:] == sorted(set(range(len(of))) - set(first))


def test_it_starts_with_the_lowest_draw_and_ranks_by_step():
    """The first pair is the one that random would take first, the last the nearest to others."""
    vectors = np.random.default_rng(0).normal(size=(50, 5))
    rows = [
        Row(f"http://a/{i}", scores={"bootstrap": {"image_emb": v.tolist()}})
        for i, v in enumerate(vectors)
    ]
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    compress(data, [KCenterSelector(count=20, seed=3)], ChooseCaption())
    found = sorted(whole(data, "subset_kcenter"), key=lambda row: row["rank"])
    in_order = sorted(rows, key=lambda row: row.uid)
    stored = [np.array(r.scores["bootstrap"]["image_emb"], np.float16) for r in in_order]
    start = min(range(50), key=lambda i: draw(3, in_order[i].uid))
    expected = plain(unit(np.array(stored)), start, 20)
    assert [row["uid"] for row in found] == [in_order[i].uid for i in expected]
    assert {row["cluster"] for row in found} == {None}


def test_groups_are_traversed_by_themselves():
    """Of 50 pairs in groups of 13, 13, 12 and 12 by draw, each gives its share, turn by turn."""
    vectors = unit(np.random.default_rng(0).normal(size=(50, 5))).astype(np.float16)
    rows = [
        Row(f"http://a/{i}", scores={"bootstrap": {"image_emb": v.tolist()}})
        for i, v in enumerate(vectors)
    ]
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    compress(data, [KCenterSelector(count=8, sample_rows=13)], ChooseCaption())
    found = sorted(whole(data, "subset_kcenter"), key=lambda row: row["rank"])
    drawn = sorted(rows, key=lambda row: draw(0, row.uid))
    expected: dict[tuple[int, int], str] = {}
    for group, (low, high) in enumerate([(0, 13), (13, 26), (26, 38), (38, 50)]):
        members = sorted(drawn[low:high], key=lambda row: row.uid)
        stored = [np.array(r.scores["bootstrap"]["image_emb"], np.float16) for r in members]
        for place, at in enumerate(plain(unit(np.array(stored)), members.index(drawn[low]), 2)):
            expected[place, group] = members[at].uid
    assert [row["uid"] for row in found] == [expected[key] for key in sorted(expected)]
