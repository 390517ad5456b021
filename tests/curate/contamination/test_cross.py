"""Two sets of hashes: every pair within the radius, however the known ones are kept."""

from __future__ import annotations

import numpy as np
import pytest

from curate.contamination import cross
from curate.contamination.cross import Known


def by_hand(known: np.ndarray, asked: np.ndarray, radius: int) -> list[tuple[int, int]]:
    near = np.bitwise_count(asked[:, None] ^ known[None]) <= radius
    return [(int(i), int(j)) for i, j in np.argwhere(near)]


def hashes(seed: int, count: int, flips: int) -> np.ndarray:
    """Distinct hashes around a few centres, and the two ends of the numbers."""
    draw = np.random.default_rng(seed)
    centres = draw.integers(0, 2**64, 6, dtype=np.uint64)
    found = centres[draw.integers(0, 6, count)]
    for _ in range(flips):
        found = found ^ (np.uint64(1) << draw.integers(0, 64, count, dtype=np.uint64))
    return draw.permutation(np.unique(np.append(found, [np.uint64(0), np.uint64(2**64 - 1)])))


@pytest.mark.parametrize("radius", [0, 1, 8, 16])
@pytest.mark.parametrize("small", [0, 10**6])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_pairs_are_those_of_comparing_everything(radius, small, seed, monkeypatch):
    """In lists by block and as a whole: each pair within the radius, once, in order."""
    monkeypatch.setattr(cross, "SMALL", small)
    known, asked = hashes(seed, 300, 6), hashes(seed, 120, 5)
    i, j = Known(known, radius).near(asked)
    expected = by_hand(known, asked, radius)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
    assert radius < 8 or len(expected) > 100


@pytest.mark.parametrize(("known", "asked"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_is_near_nothing(known, asked):
    """Empty sets have no pairs."""
    some = np.arange(5, dtype=np.uint64)
    i, j = Known(some[:known], 8).near(some[:asked])
    assert len(i) == len(j) == 0
