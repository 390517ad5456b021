"""Pairs of hashes within a radius: all of them, once."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.duplicates.hamming import MOST_VIEWS, pairs_in_view, pairs_within, plan


def clustered(count: int, flips: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Distinct hashes around few centres, so that many pairs lie near the radius."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, count // 8), dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for _ in range(flips):
        hashes ^= np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    return np.unique(hashes)


def brute_force(hashes: np.ndarray, radius: int) -> set[tuple[int, int, int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return {
        (i, j, int(near[i, j])) for i, j in zip(*np.where(near <= radius), strict=True) if i < j
    }


def in_views(hashes: np.ndarray, radius: int, t: int) -> list[tuple[int, int, int]]:
    """What all views with t error-free blocks report together."""
    ends = [64 * b // (radius + t) for b in range(radius + t + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in pairwise(ends)]
    found = []
    for view in combinations(range(radius + t), t):
        for i, j in zip(*pairs_in_view(hashes, radius, blocks, view), strict=True):
            found.append((min(i, j), max(i, j), int(hashes[i] ^ hashes[j]).bit_count()))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 16),
    st.integers(0, 3),
    st.integers(0, 400),
    st.integers(0, 10),
    st.integers(0, 99),
)
def test_all_pairs_within_the_radius_are_found_exactly_once(radius, t, count, flips, seed):
    """Any radius and any number of blocks give what comparing all gives, no repeats."""
    if radius > 8 and t > 2:
        t = 1
    hashes = np.random.default_rng(seed).permutation(clustered(count, flips, seed))
    found = in_views(hashes, radius, t)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(hashes, radius)


def test_pairs_within_compares_only_equal_keys():
    """Rows of different keys are no pairs, however near."""
    hashes, keys = np.array([0, 1, 3, 2], dtype=np.uint64), np.array([0, 0, 1, 1], dtype=np.uint64)
    left, right = pairs_within(hashes, keys, 2)
    assert {frozenset(p) for p in zip(left.tolist(), right.tolist(), strict=True)} == {
        frozenset((0, 1)),
        frozenset((2, 3)),
    }


@pytest.mark.parametrize("rows", [0, 10, 10_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("radius", [1, 2, 6, 16])
def test_the_plan_is_complete_for_any_pool(rows, radius):
    """The blocks are disjoint and cover 64 bits; there are as many as radius + t, and all choices
    of t.
    """
    blocks, views = plan(rows, radius)
    assert sum(blocks) == 2**64 - 1
    assert len(blocks) == radius + len(views[0])
    assert len(views) == len(set(views)) <= MOST_VIEWS


def test_radius_0_needs_no_views():
    """Equal hashes are stars; nothing else is compared."""
    assert plan(1000, 0) == ([], [])
