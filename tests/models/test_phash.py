"""The perceptual hashes against plain references, and what they survive."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.phash import dhash, fingerprint, phash, thumbnail, trimmed


def reference(image: np.ndarray) -> int:
    """The definition, sum by sum, without matrices."""
    grey = cv2.resize(
        cv2.cvtColor(without_border(image), cv2.COLOR_RGB2GRAY),
        (32, 32),
        interpolation=cv2.INTER_AREA,
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
    offset = 0.02 * np.sqrt(sum(c * c for c in coefficients[1:]) / 63)
    return int("".join("1" if c > middle + offset else "0" for c in coefficients), 2)


def reference_dhash(image: np.ndarray) -> int:
    """The definition, field by field."""
    grey = cv2.cvtColor(without_border(image), cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    fields = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).tolist()
    bits = ["1" if row[x + 1] - row[x] > 2 else "0" for row in fields for x in range(8)]
    return int("".join(bits), 2)


def without_border(image: np.ndarray, tolerance: int = 24) -> np.ndarray:
    """The definition of trimmed: the box of what differs from the corner."""
    differs = np.abs(image.astype(int) - image[0, 0].astype(int)).max(axis=2) > tolerance
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def drawing(seed: int, height: int = 200, width: int = 150) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def framed(image: np.ndarray, border: tuple[int, int, int, int], colour: int) -> np.ndarray:
    return cv2.copyMakeBorder(image, *border, cv2.BORDER_CONSTANT, value=(colour,) * 3)


def emblem(seed: int) -> np.ndarray:
    """A drawing that is its own mirror image, on white."""
    half = drawing(seed, 160, 80) // 2
    return framed(np.concatenate([half, half[:, ::-1]], axis=1), (40, 40, 40, 40), 255)


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 90))
def test_it_is_the_hash_of_its_definition(seed, height, width):
    """Bit for bit the plain sums, for any size."""
    image = drawing(seed, height, width)
    assert phash(image) == reference(image)
    assert dhash(image) == reference_dhash(image)
    assert fingerprint(image) == (phash(image), dhash(image), thumbnail(image))


def test_the_difference_hash_is_that_of_the_full_image_made_small():
    """Going by way of 32 x 32 flips hardly a bit of what 9 x 8 alone gives."""
    flipped = []
    for seed in range(50):
        grey = cv2.cvtColor(without_border(drawing(seed)), cv2.COLOR_RGB2GRAY)
        fields = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(int)
        bits = np.diff(fields, axis=1).ravel() > 2
        alone = int("".join(str(int(bit)) for bit in bits), 2)
        flipped.append(distance(alone, dhash(drawing(seed))))
    assert np.mean(flipped) < 1


def test_what_the_bits_of_a_difference_hash_say():
    """Brighter to the right is ones, darker zeros, row by row from the top."""
    ramp = np.repeat(np.arange(0, 252, 4, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, 2)
    assert dhash(ramp) == 2**64 - 1
    assert dhash(ramp[:, ::-1]) == 0
    assert dhash(np.concatenate([ramp, ramp[:, ::-1]])) == 0xFFFF_FFFF_0000_0000


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 247), st.integers(0, 8))
def test_noise_in_a_flat_image_flips_no_bit_of_the_difference_hash(seed, colour, noise):
    """A flat image with noise has no brighter fields."""
    draw = np.random.default_rng(seed).integers(0, noise + 1, (205, 256, 3))
    assert dhash((colour + draw).astype(np.uint8)) == 0


def test_a_flat_image_has_the_mean_alone():
    """Coefficients that are zero are zero bits, not noise; black has none."""
    assert phash(np.full((50, 40, 3), 200, np.uint8)) == 1 << 63
    assert phash(np.zeros((50, 40, 3), np.uint8)) == 0


@pytest.mark.parametrize("describe", [phash, dhash])
def test_recompressing_and_resizing_keep_it_and_other_images_differ(describe):
    """JPEG of half the size is within 6 bits; two random drawings are more than 12 apart."""
    hashes = [describe(drawing(seed)) for seed in range(20)]
    for seed, original in enumerate(hashes):
        small = cv2.resize(drawing(seed), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        assert distance(original, describe(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))) <= 6
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 12


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 255), st.integers(1, 12))
def test_the_trimmed_image_is_the_box_of_what_differs_from_the_corner(seed, colour, tolerance, n):
    """Any image, any tolerance: what plain differences give; the whole image where none do."""
    rng = np.random.default_rng(seed)
    image = np.full((n, 13 - n, 3), colour, np.uint8)
    spots = rng.random(image.shape) < rng.random() / 4
    image[spots] = rng.integers(0, 256, int(spots.sum()))
    found = trimmed(image, tolerance)
    assert np.array_equal(found, without_border(image, tolerance))
    assert np.array_equal(trimmed(image[::-1, ::-1]), without_border(image[::-1, ::-1]))


def test_the_border_does_not_matter():
    """A drawing on white, its border cropped or noisy or grown: one fingerprint."""
    image = drawing(3) // 2
    wide = framed(image, (20, 30, 40, 10), 255)
    noise = np.random.default_rng(0).integers(240, 256, wide.shape, dtype=np.uint8)
    noisy = np.where(wide == 255, noise, wide)
    for other in (image, wide, noisy, framed(image, (1, 0, 0, 1), 250)):
        assert fingerprint(framed(other, (5, 5, 5, 5), 255)) == fingerprint(image)


def test_the_offset_keeps_symmetric_drawings_from_flipping(monkeypatch):
    """Coefficients that are zero by symmetry stay zero bits when the border is cropped and the rest
    recompressed: 2 of 64 flip, 16 by a bare median.
    """

    def flipped() -> float:
        copies = [cv2.imencode(".jpg", emblem(seed)[4:, 3:])[1] for seed in range(20)]
        hashes = [phash(cv2.imdecode(copy, cv2.IMREAD_COLOR)) for copy in copies]
        return float(np.mean([distance(phash(emblem(s)), h) for s, h in enumerate(hashes)]))

    assert flipped() < 3
    monkeypatch.setattr("models.phash.OFFSET", 0.0)
    assert flipped() > 12


def test_a_thumbnail_is_the_mean_of_its_64_fields():
    """192 bytes, row by row, red first."""
    image = drawing(5, 80, 160)
    fields = image.reshape(8, 10, 8, 20, 3).mean(axis=(1, 3))
    found = np.frombuffer(thumbnail(image), np.uint8).reshape(8, 8, 3)
    assert trimmed(image).shape == image.shape
    assert np.abs(found - fields).max() <= 1


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_other_shapes_are_refused(shape):
    """Only RGB is taken: alpha has to be composited before."""
    for describe in (phash, dhash, thumbnail, fingerprint):
        with pytest.raises(ValueError, match=f"{describe.__name__} .* height x width x 3"):
            describe(np.zeros(shape, np.uint8))
