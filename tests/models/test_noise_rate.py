"""noise_rate: the share of a pool that is mismatched, none where there is none."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.noise_rate import noise_rate

N = 4000
# d' of two normal losses of one variance, by the AUC they give
SHIFT = {auc: 2**0.5 * NormalDist().inv_cdf(auc) for auc in (0.75, 0.87, 0.95, 0.99)}


def drawn(rate: float, auc: float, n: int = N, seed: int = 0):
    """Losses of a pool, and of three times as many mismatches."""
    rng = np.random.default_rng(seed)
    noisy = rng.random(n) < rate
    return np.where(noisy, SHIFT[auc], 0.0) + rng.standard_normal(n), SHIFT[
        auc
    ] + rng.standard_normal(3 * n)


@pytest.mark.parametrize("auc", [0.95, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_a_clean_pool_is_clean(auc: float, seed: int):
    """Below 5 % with a scorer of AUC 0.95, whatever the draw, and the interval has 0."""
    found = noise_rate(*drawn(0, auc, seed=seed), seed)
    assert found.noise_rate < 0.02
    assert found.lower == 0
    assert found.upper < 0.05


@pytest.mark.parametrize("auc", [0.75, 0.87])
@pytest.mark.parametrize("seed", range(5))
def test_a_weak_scorer_cannot_rule_out_that_there_is_none(auc: float, seed: int):
    """The interval of a clean pool has 0, where the share above the median says up to 35 %."""
    losses, wrong = drawn(0, auc, seed=seed)
    found = noise_rate(losses, wrong, seed)
    assert found.lower == 0
    assert found.noise_rate < (losses > np.median(wrong)).mean() / 0.5


@pytest.mark.parametrize("auc", [0.87, 0.95, 0.99])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_it_finds_the_rate(rate: float, auc: float):
    """Within two standard deviations of counting in a tail, and within the interval."""
    found = noise_rate(*drawn(rate, auc, seed=1), 0)
    assert found.noise_rate == pytest.approx(rate, abs=0.02 + 0.07 * rate)
    assert found.lower <= rate <= found.upper
    assert found.lower < found.upper
    assert found.auc == pytest.approx(auc, abs=0.03 if rate < 0.9 else 0.2)


def test_nineteen_intervals_of_twenty_have_the_rate():
    """Coverage of the 95 % interval over draws, at least nine in ten."""
    hits = 0
    for seed in range(40):
        found = noise_rate(*drawn(0.1, 0.95, n=1500, seed=seed), seed)
        hits += found.lower <= 0.1 <= found.upper
    assert hits >= 36


@pytest.mark.parametrize("stretch", [np.exp, lambda x: x**3, lambda x: np.maximum(x, -0.5)])
def test_only_the_order_above_the_mismatches_median_counts(stretch):
    """Any rising change of the loss, and any at all far below, leaves the estimate as it is."""
    losses, wrong = drawn(0.1, 0.99)
    assert noise_rate(stretch(losses), stretch(wrong), 0).noise_rate == pytest.approx(
        noise_rate(losses, wrong, 0).noise_rate, abs=0.002
    )


def test_equal_losses_tell_nothing():
    """None is the least that explains them, all the most."""
    found = noise_rate(np.full(100, 3.0), np.full(300, 3.0), 0)
    assert (found.noise_rate, found.lower, found.upper) == (0, 0, pytest.approx(1))


def test_nothing_but_noise_is_all_or_cannot_be_told():
    """Pairs that look as mismatches do: the interval reaches 1."""
    rng = np.random.default_rng(0)
    found = noise_rate(rng.standard_normal(N), rng.standard_normal(3 * N), 0)
    assert found.upper > 0.95


@settings(max_examples=60, deadline=None)
@given(
    losses=st.lists(st.floats(0, 100), min_size=1, max_size=30),
    wrong=st.lists(st.floats(0, 100), min_size=1, max_size=30),
)
def test_it_is_a_share_whatever_the_losses(losses, wrong):
    """Between 0 and 1, within its interval, the same in any order."""
    found = noise_rate(np.array(losses), np.array(wrong), 0)
    assert 0 <= found.lower <= found.noise_rate <= found.upper <= 1 + 1e-9
    assert noise_rate(np.array(losses[::-1]), np.array(wrong[::-1]), 0) == found
