"""Two kinds of pairs in one dimension: a mixture of two Gaussians with one variance.

One variance, so that the probability of the high component never falls as the loss grows: with two,
the broader one wins at both ends, and the best pairs pass for noise. The high component is held by
losses of pairs that are known to be mismatches, so that it cannot settle on the worse half of a
clean pool; how many pairs belong to it is not the mixture's to say, which finds two kinds in
everything, but the null's (models/noise_rate.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 200
STILL = 1e-6  # change of the weight at which EM has arrived
NARROWEST = 1e-6  # standard deviation, of the range of the losses
HALVINGS = 60


@dataclass(frozen=True)
class Mixture:
    """Means of true pairs and of mismatches, their one variance, and two shares of mismatches:
    the weight that EM found, and the prior with which the mean probability is the noise rate.
    """

    low: float
    high: float
    variance: float
    weight: float
    prior: float

    def noise_prob(self, losses: Array) -> Array:
        """P(mismatch | loss), float64 in 0..1; NaN for NaN."""
        return _posterior(losses, self.low, self.high, self.variance, self.prior)


def fit_mixture(losses: Array, mismatches: Array, noise_rate: float) -> Mixture:
    """Fit to a pool's losses and to those of known mismatches; EM, then the prior by bisection."""
    losses, mismatches = np.sort(losses), np.sort(mismatches)  # the order of pairs is no input
    floor = (NARROWEST * max(np.ptp(np.concatenate([losses, mismatches])), NARROWEST)) ** 2
    known, mean, spread = len(mismatches), float(mismatches.mean()), float(mismatches.var())
    low, high = min(float(np.quantile(losses, 0.25)), mean), mean
    variance, weight = max(spread, floor), 0.5
    for _ in range(STEPS):
        noisy = _posterior(losses, low, high, variance, weight)
        before, weight = weight, float(noisy.mean())
        low = _mean(losses, 1 - noisy, low)
        high = max((float(noisy @ losses) + known * mean) / (noisy.sum() + known), low)
        squares = (1 - noisy) @ (losses - low) ** 2 + noisy @ (losses - high) ** 2
        squares += known * (spread + (mean - high) ** 2)
        variance = max(float(squares) / (len(losses) + known), floor)
        if abs(weight - before) < STILL:
            break
    prior = _prior(losses, low, high, variance, noise_rate)
    return Mixture(low, high, variance, weight, prior)


def _mean(losses: Array, weights: Array, default: float) -> float:
    total = float(weights.sum())
    return float(weights @ losses) / total if total > 0 else default


def _posterior(losses: Array, low: float, high: float, variance: float, prior: float) -> Array:
    if prior in (0.0, 1.0):
        return np.where(np.isnan(losses), np.nan, prior)
    slope = (high - low) / variance
    logit = slope * (losses - (low + high) / 2) + math.log(prior / (1 - prior))
    found: Array = 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    return found


def _prior(losses: Array, low: float, high: float, variance: float, rate: float) -> float:
    """The prior with which the probabilities of these losses have the mean `rate`."""
    if rate in (0.0, 1.0):
        return rate
    below, above = -500.0, 500.0  # logits
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        prior = 1 / (1 + math.exp(-middle))
        if _posterior(losses, low, high, variance, prior).mean() < rate:
            below = middle
        else:
            above = middle
    return 1 / (1 + math.exp(-(below + above) / 2))
