"""How many pairs of a pool are mismatches, by their losses and those of pairs that certainly are.

Beyond a high quantile of the mismatches' losses, which a share q of them exceeds, hardly a true
pair is found: the share of the pool there, over q, is the noise rate (Storey 2002 does this with
p-values). What leaks in of true pairs is not nothing where the scorer is weak: an AUC of 0.87 makes
the ratio at the median say 12 % of a clean pool. So the leak is estimated along with the rate. In
the scale where mismatches are N(0, 1), their normal scores, true pairs are taken as N(-d, 1), the
binormal ROC curve of one variance, and

    P(loss beyond q) = rate q + (1 - rate) Phi(Phi^-1(q) - d)

is fitted by maximum likelihood to the pool's counts between the TAILS, where the loss is above the
mismatches' median: how true pairs are spread below it, which no Gaussian knows, plays no part.
Where several rates explain the counts equally well, it is the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
TAILS = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)  # shares of the mismatches beyond the cuts
SHIFTS = np.arange(0, 6.01, 0.1)  # d: AUC 0.5 to 1 - 1e-5
RATES = np.concatenate([np.arange(100) / 1000, np.arange(20, 201) / 200])
DRAWS = 500
TIE = 1e-3  # of a log likelihood
WITHIN = 1.92  # of the greatest log likelihood: the 95 % of chi-squared with 1 degree, halved
LEAST = 1e-300
NORMAL = NormalDist()


@dataclass(frozen=True)
class NoiseRate:
    """Shares of the pool, 0..1: the estimate and its 95 % interval, the broader of the bootstrap's
    and the likelihood ratio's (which knows when nothing can be told). auc: how well the loss tells
    mismatches from true pairs, by the fitted curve.
    """

    noise_rate: float
    lower: float
    upper: float
    auc: float


def noise_rate(losses: Array, mismatches: Array, seed: int) -> NoiseRate:
    """Of a pool with these losses, beside those of known mismatches, taken from the same pool.

    The interval is that of drawing the pool's pairs; the mismatches, of which one can make many,
    are taken as known.
    """
    cuts = np.unique(np.quantile(mismatches, 1 - np.array(TAILS)))
    masses = _between(mismatches, cuts) / len(mismatches)
    counts = _between(losses, cuts)
    draws = np.random.default_rng(seed).multinomial(len(losses), counts / len(losses), DRAWS)
    likely = _likelihoods(np.concatenate([counts[None], draws]), masses)  # (rates, shifts, draws)
    profile = likely.max(axis=1)
    best = RATES[np.argmax(profile > profile.max(axis=0) - TIE, axis=0)]
    possible = RATES[profile[:, 0] > profile[:, 0].max() - WITHIN]
    shift = SHIFTS[np.argmax(likely[np.searchsorted(RATES, best[0]), :, 0])]
    low, high = np.quantile(best[1:], [0.025, 0.975])
    return NoiseRate(
        float(best[0]),
        float(min(low, possible.min())),
        float(max(high, possible.max())),
        NORMAL.cdf(float(shift) / 2**0.5),
    )


def _between(losses: Array, cuts: Array) -> Array:
    """How many lie up to the first cut, between two, and beyond the last."""
    return np.bincount(np.searchsorted(cuts, losses, "left"), minlength=len(cuts) + 1)


def _likelihoods(counts: Array, masses: Array) -> Array:
    """Log likelihood of each row of counts (draws, cells): (rates, shifts, draws)."""
    beyond = np.cumsum(masses[::-1])[::-1][1:]  # of mismatches, per cut
    leaks = np.array([[_leak(float(q), float(d)) for q in beyond] for d in SHIFTS])
    ones, zeros = np.ones((len(SHIFTS), 1)), np.zeros((len(SHIFTS), 1))
    true = -np.diff(np.concatenate([ones, leaks, zeros], axis=1), axis=1)  # (shifts, cells)
    rates = RATES[:, None, None]
    expected = np.maximum((1 - rates) * true + rates * masses, LEAST)
    found: Array = np.log(expected) @ counts.T
    return found


def _leak(q: float, d: float) -> float:
    """The share of true pairs beyond a cut that a share q of the mismatches exceeds."""
    return NORMAL.cdf(NORMAL.inv_cdf(q) - d) if 0 < q < 1 else q
