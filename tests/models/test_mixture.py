"""mixture: a probability that never falls as the loss grows, whatever the losses are."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mixture import Mixture, fit_mixture

LOSS = st.floats(0, 200) | st.sampled_from([0.0, 1.0, 1.0 + 1e-12, 1e-300, 1e6])
LOSSES = st.lists(LOSS, min_size=1, max_size=40).map(np.array)
RATE = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-9])


@settings(max_examples=300, deadline=None)
@given(losses=LOSSES, wrong=LOSSES, rate=RATE)
def test_it_is_a_probability_that_never_falls_as_the_loss_grows(losses, wrong, rate: float):
    """Over any losses: equal ones, huge ones, mismatches that look better than true pairs."""
    mixture = fit_mixture(losses, wrong, rate)
    grid = np.sort(np.concatenate([losses, wrong, np.linspace(0, 300, 50)]))
    found = mixture.noise_prob(grid)
    assert np.all(np.diff(found) >= 0)
    assert np.all((found >= 0) & (found <= 1))
    assert mixture.low <= mixture.high
    assert Mixture(**json.loads(json.dumps(asdict(mixture)))) == mixture


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_it_finds_two_gaussians_and_is_calibrated(rate: float):
    """Means and variance of what was drawn; of pairs given about p, about p are mismatches."""
    rng = np.random.default_rng(0)
    noisy = rng.random(20_000) < rate
    losses = np.where(noisy, 4.0, 1.0) + rng.standard_normal(20_000)
    mixture = fit_mixture(losses, 4 + rng.standard_normal(20_000), rate)
    assert (mixture.low, mixture.high) == pytest.approx((1, 4), abs=0.1)
    assert mixture.variance == pytest.approx(1, abs=0.1)
    assert mixture.weight == pytest.approx(rate, abs=0.02)
    found = mixture.noise_prob(losses)
    assert found.mean() == pytest.approx(rate, abs=1e-6)
    for low in (0.1, 0.4, 0.7):
        among = noisy[(found >= low) & (found < low + 0.2)]
        assert abs(among.mean() - found[(found >= low) & (found < low + 0.2)].mean()) < 0.12


def test_a_clean_pool_is_clean_whatever_em_finds():
    """A rate of none is a probability of none, though two components were fitted."""
    rng = np.random.default_rng(0)
    losses, wrong = rng.gamma(2, 0.5, 5000), 5 + rng.standard_normal(5000)
    assert fit_mixture(losses, wrong, 0.0).noise_prob(losses).max() == 0
    assert fit_mixture(losses, wrong, 1.0).noise_prob(losses).min() == 1


def test_equal_losses_share_one_probability():
    """Nothing tells them apart: each has the noise rate."""
    mixture = fit_mixture(np.full(50, 3.0), np.full(50, 3.0), 0.25)
    assert mixture.noise_prob(np.array([3.0])) == pytest.approx([0.25])


def test_the_order_of_the_losses_is_no_input():
    """To the bit."""
    rng = np.random.default_rng(0)
    losses, wrong = rng.gamma(2, 0.5, 500), rng.gamma(9, 0.5, 700)
    one = fit_mixture(losses, wrong, 0.2)
    assert fit_mixture(rng.permutation(losses), rng.permutation(wrong), 0.2) == one


def test_no_loss_has_no_probability():
    """NaN stays NaN at every rate."""
    for rate in (0.0, 0.5, 1.0):
        mixture = fit_mixture(np.arange(9.0), np.arange(5.0, 14.0), rate)
        assert np.isnan(mixture.noise_prob(np.array([np.nan, 1.0]))).tolist() == [True, False]
