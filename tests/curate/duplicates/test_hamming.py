"""Pairs of hashes within a radius: all of them, once."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.duplicates.hamming import MOST_VIEWS, batches, pairs_in_view, plan, ranges

Array = np.ndarray[Any, np.dtype[np.uint64]]
NOTHING: Array = np.empty(0, np.uint64)


def clustered(count: int, flips: int, seed: int) -> Array:
    """Distinct hashes around few centres, so that many pairs lie near the radius."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, count // 8), dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for _ in range(flips):
        hashes ^= np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    return rng.permutation(np.unique(hashes))


def brute_force(fresh: Array, known: Array, radius: int) -> set[frozenset[int]]:
    every = np.concatenate([fresh, known])
    near = np.triu(np.bitwise_count(every[:, None] ^ every[None, :]) <= radius, 1)
    near[len(fresh) :] = False
    return {frozenset((int(every[i]), int(every[j]))) for i, j in np.argwhere(near)}


def in_views(fresh: Array, known: Array, radius: int, t: int) -> list[frozenset[int]]:
    """What all views with t error-free blocks report together."""
    ends = [64 * b // (radius + t) for b in range(radius + t + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in pairwise(ends)]
    found: list[frozenset[int]] = []
    for view in combinations(range(radius + t), t):
        for left, right in pairs_in_view(fresh, known, radius, blocks, view):
            found += map(frozenset, zip(left.tolist(), right.tolist(), strict=True))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 16),
    st.integers(0, 3),
    st.integers(0, 400),
    st.integers(0, 10),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_all_pairs_within_the_radius_are_found_exactly_once(radius, t, count, flips, share, seed):
    """Any radius, number of blocks and share of fresh ones give what comparing all gives."""
    if radius > 8 and t > 2:
        t = 1
    hashes = clustered(count, flips, seed)
    fresh, known = np.split(hashes, [int(share * len(hashes))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.duplicates.hamming.PROBED", 50)
        patch.setattr("curate.duplicates.hamming.CHUNK", 16)
        found = in_views(fresh, known, radius, t)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(fresh, known, radius)


def test_a_view_compares_only_what_is_equal_in_its_blocks():
    """Hashes that differ there are left to other views, however near."""
    fresh, known = np.array([0, 1], np.uint64), np.array([2, 1 << 60], np.uint64)
    blocks = [(1 << 32) - 1, (1 << 64) - (1 << 32)]
    pairs = [(p[0].tolist(), p[1].tolist()) for p in pairs_in_view(fresh, known, 1, blocks, (1,))]
    assert pairs == [([0], [1]), ([2], [0])]
    pairs = [(p[0].tolist(), p[1].tolist()) for p in pairs_in_view(fresh, known, 1, blocks, (0,))]
    assert pairs == [([1 << 60], [0])]


@pytest.mark.parametrize("rows", [0, 10, 10_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("radius", [1, 2, 6, 16])
@pytest.mark.parametrize("fresh", [None, 0, 10])
def test_the_plan_is_complete_for_any_pool(rows, radius, fresh):
    """The blocks are disjoint and cover 64 bits; there are as many as radius + t, and all choices
    of t.
    """
    blocks, views, view_s = plan(rows, radius, fresh)
    assert sum(blocks) == 2**64 - 1
    assert len(blocks) == radius + len(views[0])
    assert len(views) == len(set(views)) <= MOST_VIEWS
    assert view_s > 0


def test_few_fresh_hashes_take_fewer_views():
    """What is compared with all shrinks, so looking at all of it more often does not pay."""
    assert len(plan(10**7, 8, 10**4).views) < len(plan(10**7, 8).views)


def test_radius_0_needs_no_views():
    """Equal hashes are stars; nothing else is compared."""
    assert plan(1000, 0).views == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4))))
def test_ranges_are_one_behind_the_other(drawn):
    """Each from its begin on, as many as asked."""
    begin, counts = (np.array([d[k] for d in drawn], np.int64) for k in (0, 1))
    assert ranges(begin, counts).tolist() == [b + i for b, n in drawn for i in range(n)]


@given(st.lists(st.integers(0, 9)), st.integers(1, 20))
def test_batches_are_small_and_cover_everything(counts, most):
    """Consecutive, none empty, none above `most` but for one that holds a single count."""
    found = list(batches(np.array(counts, np.int64), most))
    assert [i for begin, end in found for i in range(begin, end)] == list(range(len(counts)))
    assert all(sum(counts[b:e]) <= most or e == b + 1 for b, e in found)
