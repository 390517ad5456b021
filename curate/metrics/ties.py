"""Hits when scores are equal: the expectation over all orders of the equal candidates.

So a constant output is at chance, wherever the right answer happens to lie in the list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
DECIMALS = 5  # cosines closer than this are equal: a batch's size moves the last bits of a float32


def expected_hits(scores: Array, right: Array, k: int) -> Array:
    """(n,): the probability that one of a row's right candidates is among its first k.

    scores: (n, m), the higher the better. right: (n, m) bool, at least one True per row. With
    `above` candidates scored higher than the best right one, and w wrong and c right ones level
    with it, a hit within the next q = k - above places fails only if all q are wrong:
    1 - C(w, q) / C(w + c, q). A score that is no number is below all others.
    """
    level = np.where(np.isnan(scores), -np.inf, np.round(scores, DECIMALS))
    best = np.where(right, level, -np.inf).max(axis=1, keepdims=True)
    above = (level > best).sum(axis=1)
    tied = level == best
    wrong, good = (tied & ~right).sum(axis=1), (tied & right).sum(axis=1)
    return np.array(
        [_hit(k - int(a), int(w), int(c)) for a, w, c in zip(above, wrong, good, strict=True)]
    )


def _hit(places: int, wrong: int, right: int) -> float:
    if places <= 0:
        return 0.0
    if places > wrong:
        return 1.0
    miss = 1.0
    for i in range(places):
        miss *= (wrong - i) / (wrong + right - i)
    return 1.0 - miss
