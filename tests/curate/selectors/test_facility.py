"""Facility location: lazy greedy is greedy, near the best there is, with fewer evaluations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.selectors.facility import alike, gains, lazy_greedy


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain(similar: np.ndarray, count: int) -> list[int]:
    """Greedy: every pair's gain at every step, each by itself."""
    covered = np.zeros(len(similar), np.float32)
    taken: list[int] = []
    for _ in range(count):
        gain = np.array([gains(row[None], covered)[0] for row in similar])
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        covered = np.maximum(covered, similar[taken[-1]])
    return taken


@pytest.mark.parametrize(("n", "dims"), [(1, 2), (60, 3), (300, 24)])
def test_lazy_greedy_is_greedy(n, dims):
    """The same pairs in the same order, to the last one, with fewer gains computed."""
    similar = alike(unit(np.random.default_rng(n).normal(size=(n, dims))))
    found, evaluations = lazy_greedy(similar, n)
    assert found.tolist() == plain(similar, n)
    assert evaluations <= n * (n + 1) / 2
    if n > 1:
        assert lazy_greedy(similar, n // 4)[1] < sum(n - k for k in range(n // 4)) / 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-1, 1)] * 3), min_size=1, max_size=40))
def test_ties_go_by_number(vectors):
    """Few directions, many copies: still plain greedy's order, lowest number first."""
    similar = alike(unit(np.array(vectors) + 0.5))
    assert lazy_greedy(similar, len(vectors))[0].tolist() == plain(similar, len(vectors))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(1, 4), st.integers(0, 999))
def test_it_reaches_its_share_of_the_best(n, count, seed):
    """At least 1 - 1/e of the best set of as many pairs."""
    similar = alike(unit(np.random.default_rng(seed).normal(size=(n, 3))))
    count = min(count, n)
    best = max(similar[list(s)].max(axis=0).sum() for s in combinations(range(n), count))
    found = similar[lazy_greedy(similar, count)[0]].max(axis=0).sum()
    assert found >= (1 - 1 / math.e) * best - 1e-5


def test_the_first_pair_is_the_most_central():
    """Three near each other and one apart: the middle one, then the one apart."""
    rows = unit(np.array([[1, 0.3], [1, 0], [1, -0.3], [-1, 0.1]]))
    assert lazy_greedy(alike(rows), 2)[0].tolist() == [1, 3]


def test_opposites_are_less_alike_than_strangers():
    """1 for the same direction, 1/2 for a right angle, 0 for the opposite."""
    rows = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    assert alike(rows).tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
