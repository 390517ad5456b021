"""Expected hits: the mean over all orders of equal candidates, chance for a constant."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.metrics.ties import expected_hits


def by_enumeration(scores: list[int], right: list[bool], k: int) -> float:
    """Mean over all orders of the candidates, sorted stably by score."""
    hits = [
        any(right[i] for i in sorted(order, key=lambda i: -scores[i])[:k])
        for order in permutations(range(len(scores)))
    ]
    return float(np.mean(hits))


@given(
    pairs=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6).filter(
        lambda pairs: any(right for _, right in pairs)
    ),
    k=st.integers(1, 7),
)
def test_a_hit_is_the_mean_over_all_orders_of_equal_scores(pairs, k):
    """The formula agrees with plain enumeration, whatever is tied and however many are right."""
    scores, right = [s for s, _ in pairs], [r for _, r in pairs]
    found = expected_hits(np.array([scores], float), np.array([right]), k)[0]
    assert found == pytest.approx(by_enumeration(scores, right, k))


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_a_constant_output_is_at_chance(value):
    """One right candidate of ten: k / 10, also where the output is no number."""
    scores = np.full((4, 10), value)
    right = np.eye(10, dtype=bool)[:4]
    for k in (1, 5, 10):
        assert expected_hits(scores, right, k) == pytest.approx([k / 10] * 4)


def test_the_last_bits_of_a_float_decide_nothing():
    """Cosines that differ by rounding alone are equal."""
    scores = np.array([[0.5 + 1e-7, 0.5]], np.float32)
    assert expected_hits(scores, np.array([[True, False]]), 1) == pytest.approx([0.5])
