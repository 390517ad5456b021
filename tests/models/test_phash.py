"""The perceptual hashes against plain references, and what they survive."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.phash import Fingerprint, dhash, fingerprint, phash, thumbnail, trimmed


def reference(image: np.ndarray) -> int:
    """The definition, sum by sum, without matrices."""
    grey = small_grey(image)
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
    offset = max(4, 0.15 * np.sqrt(sum(c * c for c in coefficients[1:]) / 63))
    return int("".join("1" if c > middle + offset else "0" for c in coefficients), 2)


def reference_dhash(image: np.ndarray) -> int:
    """The definition, field by field."""
    fields = cv2.resize(small_grey(image), (9, 8), interpolation=cv2.INTER_AREA).tolist()
    bits = ["1" if row[x + 1] - row[x] > 2 else "0" for row in fields for x in range(8)]
    return int("".join(bits), 2)


def small_grey(image: np.ndarray) -> np.ndarray:
    """The definition of what is hashed."""
    inner = without_border(at_256(image), ramp=int(np.ceil(256 / max(image.shape[:2]))))
    larger = cv2.resize(inner, (128, 128), interpolation=cv2.INTER_LINEAR)
    means = cv2.resize(larger, (32, 32), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(means, cv2.COLOR_RGB2GRAY)


def at_256(image: np.ndarray) -> np.ndarray:
    """The longest side is 256."""
    height, width = image.shape[:2]
    longest = max(height, width)
    size = (max(1, round(width * (256 / longest))), max(1, round(height * (256 / longest))))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if longest > 256 else 1)


def without_border(image: np.ndarray, ramp: int = 0) -> np.ndarray:
    """The definition of trimmed: the box of what differs from the corner, but for 0.5 % of it; the
    ramp goes where there is a border.
    """
    apart = np.abs(image.astype(int) - image[0, 0].astype(int))
    highest = np.abs(image.astype(int)[..., None] - image[0, 0].astype(int)).max()
    differs = apart.max(axis=2) > max(16, int(0.12 * highest))
    rows, columns = np.nonzero(differs)
    if not len(rows):
        return image
    left_out = 0.005 * len(rows)

    def bounds(places: np.ndarray, side: int) -> slice:
        first = next(n for n in range(256**2) if (places <= n).sum() > left_out)
        last = next(n for n in range(256**2) if (places <= n).sum() >= len(places) - left_out)
        end = max(first, last) + 1
        inner = (first + ramp if first else 0, end - ramp if end < side else side)
        return slice(*inner) if inner[0] < inner[1] else slice(first, end)

    return image[bounds(rows, image.shape[0]), bounds(columns, image.shape[1])]


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
        grey = cv2.cvtColor(without_border(at_256(drawing(seed)), ramp=2), cv2.COLOR_RGB2GRAY)
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
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(1, 40), st.integers(0, 9))
def test_the_trimmed_image_is_the_box_of_what_differs_from_the_corner(seed, colour, n, ramp):
    """Any image: what plain differences and counts give; the whole image where none differ."""
    rng = np.random.default_rng(seed)
    image = np.full((n, 41 - n, 3), colour, np.uint8)
    spots = rng.random(image.shape) < rng.random() / 4
    image[spots] = rng.integers(0, 256, int(spots.sum()))
    for view in (image, image[::-1, ::-1]):
        assert np.array_equal(trimmed(view, ramp), without_border(view, ramp))


def test_specks_are_border():
    """A few pixels far from the drawing do not widen its box."""
    image = framed(drawing(3, 100, 100) // 2, (50, 50, 50, 50), 255)
    box = trimmed(image).shape
    image[2, 7] = image[190, 195] = image[100, 3] = 0
    assert trimmed(image).shape == box


@pytest.mark.parametrize("side", [48, 64])
def test_the_ringing_of_jpeg_does_not_move_the_box_of_a_small_drawing(side):
    """At quality 50, at its size or twice that, hashes and thumbnail stay near."""
    for seed in range(10):
        image = framed(drawing(seed, side, side) // 3, (9, 14, 11, 8), 255)
        for scale in (1, 2):
            copy = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            jpeg = cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
            seen = fingerprint(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
            are_near(seen, fingerprint(image), bits=8, rms=9)


def are_near(one: Fingerprint, other: Fingerprint, bits: int, rms: float) -> None:
    """Hashes differ in so many bits, thumbnails by so much, at most."""
    levels = [np.frombuffer(of.thumbnail, np.uint8).astype(float) for of in (one, other)]
    assert distance(one.phash, other.phash) <= bits
    assert distance(one.dhash, other.dhash) <= bits
    assert np.sqrt(np.mean((levels[0] - levels[1]) ** 2)) <= rms


def test_the_border_does_not_matter():
    """A drawing on white, its border cropped or noisy or grown: hardly another fingerprint."""
    image = drawing(3) // 2
    wide = framed(image, (20, 30, 40, 10), 255)
    noise = np.random.default_rng(0).integers(240, 256, wide.shape, dtype=np.uint8)
    noisy = np.where(wide == 255, noise, wide)
    for other in (image, wide, noisy, framed(image, (1, 0, 0, 1), 250)):
        bordered = fingerprint(framed(other, (5, 5, 5, 5), 255))
        are_near(bordered, fingerprint(framed(image, (5, 5, 5, 5), 255)), bits=4, rms=5)


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
    monkeypatch.setattr("models.phash.NOISE", 0.0)
    assert flipped() > 12


def test_a_thumbnail_is_the_mean_of_its_64_fields():
    """192 bytes, row by row, red first."""
    image = drawing(5, 128, 256)
    fields = image.reshape(8, 16, 8, 32, 3).mean(axis=(1, 3))
    found = np.frombuffer(thumbnail(image), np.uint8).reshape(8, 8, 3)
    assert min(trimmed(image).shape[:2]) > 120  # a photo loses next to nothing
    assert np.abs(found - fields).max() <= 6


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (4, 4, 1)])
def test_other_shapes_are_refused(shape):
    """Only RGB is taken: alpha has to be composited before."""
    for describe in (phash, dhash, thumbnail, fingerprint):
        with pytest.raises(ValueError, match=f"{describe.__name__} .* height x width x 3"):
            describe(np.zeros(shape, np.uint8))
