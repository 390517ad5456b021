"""The perceptual hash against a plain reference, and what it survives."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.phash import phash


def reference(image: np.ndarray) -> int:
    """The definition, sum by sum, without matrices."""
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA
    )
    spread = [
        [
            np.cos(np.pi * (2 * x + 1) * k / 64) * np.sqrt((1 if k == 0 else 2) / 32)
            for x in range(32)
        ]
        for k in range(8)
    ]
    coefficients = [
        round(
            sum(
                float(grey[y, x]) * spread[u][y] * spread[v][x]
                for y in range(32)
                for x in range(32)
            ),
            4,
        )
        for u in range(8)
        for v in range(8)
    ]
    middle = sorted(coefficients[1:])[31]
    return int("".join("1" if c > middle else "0" for c in coefficients), 2)


def drawing(seed: int, height: int = 200, width: int = 150) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 90))
def test_it_is_the_hash_of_its_definition(seed, height, width):
    """Bit for bit the plain sums, for any size."""
    image = drawing(seed, height, width)
    assert phash(image) == reference(image)


def test_a_flat_image_has_the_mean_alone():
    """Coefficients that are zero are zero bits, not noise; black has none."""
    assert phash(np.full((50, 40, 3), 200, np.uint8)) == 1 << 63
    assert phash(np.zeros((50, 40, 3), np.uint8)) == 0


def test_recompressing_and_resizing_keep_it_and_other_images_differ():
    """JPEG of half the size is within 6 bits; two random drawings are more than 12 apart."""
    hashes = [phash(drawing(seed)) for seed in range(20)]
    for seed, original in enumerate(hashes):
        small = cv2.resize(drawing(seed), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        assert distance(original, phash(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))) <= 6
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 12


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_other_shapes_are_refused(shape):
    """Only RGB is hashed: alpha has to be composited before."""
    with pytest.raises(ValueError, match="height x width x 3"):
        phash(np.zeros(shape, np.uint8))
