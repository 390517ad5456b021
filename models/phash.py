"""Perceptual hashes and thumbnail of what an image shows, without its border: all survive
re-encoding, resizing and small crops. The hashes find, the thumbnail tells colours apart.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from models.base import Image

SIDE = 32  # of the grey image that is transformed
CHANNELS = 3
KEPT = 8  # lowest frequencies, each way; differences, each way
OFFSET = 0.15  # of the coefficients' rms: what is nearer to their median is zero
NOISE = 4.0  # grey levels: as little of a coefficient may be an encoder's noise
THUMBNAIL_SIDE = 8
STEP = 2  # grey levels by which the next field has to be brighter: what is flat has no bits
LONGEST = 256  # side at which the border is looked for, so that resized copies have the same one
TOLERANCE = 16  # levels by which a border may differ from itself
RINGING = 0.12  # of the largest difference: what JPEG puts around an edge of that height
OUTSIDE = 0.005  # of the pixels that are no border, beyond each end of the box: specks


Array = np.ndarray[Any, np.dtype[Any]]


class Fingerprint(NamedTuple):
    """What an image looks like: two 64-bit hashes, and 192 bytes of RGB."""

    phash: int
    dhash: int
    thumbnail: bytes


def trimmed(image: Image, ramp: int = 0) -> Image:
    """The image without its uniform border: the box (a view) of the pixels that differ from the top
    left one, in some channel, by more than 16 levels and by more than 0.12 of what any does.

    A box holds all of them but for 0.5 % of their number beyond each of its ends. What a border's
    noise, JPEG's ringing and specks do to the box is next to nothing then. An image without such
    pixels stays whole.

    ramp: pixels that an edge is blurred over; as many more go where there is a border.
    """
    import cv2

    inside = _differing(image)
    sums = (cv2.reduce(inside, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32F) for axis in (1, 0))
    (top, bottom), (left, right) = (_bounds(of.ravel(), ramp) for of in sums)
    return image[top:bottom, left:right]


def _differing(image: Image) -> Image:
    """255 where a pixel differs from the top left one, else 0."""
    import cv2

    corner = image[0, 0].astype(int)
    most = max(int(corner.max()) - int(image.min()), int(image.max()) - int(corner.min()))
    tolerance = max(TOLERANCE, int(RINGING * most))
    low, high = np.maximum(corner - tolerance, 0), np.minimum(corner + tolerance, 255)
    alike = cv2.inRange(image, low.astype(np.uint8), high.astype(np.uint8))
    return np.asarray(cv2.bitwise_not(alike), np.uint8)


def _bounds(mass: Array, ramp: int) -> tuple[int, int]:
    """Begin and end of what holds all of `mass` but for OUTSIDE of it at either end; the whole
    where it is 0.
    """
    below = np.cumsum(mass, dtype=np.float64)
    if not below[-1]:
        return 0, len(mass)
    begin = int(np.searchsorted(below, OUTSIDE * below[-1], "right"))
    last = int(np.searchsorted(below, (1 - OUTSIDE) * below[-1]))
    end = max(begin, last) + 1
    inner = begin + ramp * (begin > 0), end - ramp * (end < len(mass))
    return inner if inner[0] < inner[1] else (begin, end)


def phash(image: Image) -> int:
    """DCT hash of an RGB image (height x width x 3, uint8), as an unsigned 64-bit number.

    The image is scaled to a longest side of 256, trimmed, resized to 32 x 32 (by way of 128 x 128)
    and made grey; a bit says whether one of its 8 x 8 lowest DCT-II coefficients is above the
    median of the 63 that are not the mean, by more than 0.15 of their rms and than 4. The most
    significant bit is the mean's (1 but for black images); then vertical frequency by vertical
    frequency.
    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010),
    with two changes. Half of the coefficients of a symmetric drawing are zero but for noise, which
    falls on either side of a bare median; the offset lets them all be 0. And a crop of the border
    shifts everything inside it, so the border goes first.
    Raises ValueError for any other shape or type.
    """
    _check("phash", image)
    return _dct_hash(_grey(_seen(image)))


def dhash(image: Image) -> int:
    """Difference hash of an RGB image (height x width x 3, uint8), as an unsigned 64-bit number.

    The image is made 32 x 32 and grey as for `phash`, and that area-resized to 9 x 8; a bit says
    whether the field to the right is brighter by more than STEP. The most significant bit is the
    top left one; then row by row.
    Source: Krawetz, "Kind of Like That" (2013), with the step, so that noise in flat areas flips
    nothing. Raises ValueError for any other shape or type.
    """
    _check("dhash", image)
    return _difference_hash(_grey(_seen(image)))


def thumbnail(image: Image) -> bytes:
    """The RGB image (height x width x 3, uint8), made 32 x 32 as for `phash`, area-resized to
    8 x 8: 192 bytes, row by row.

    Raises ValueError for any other shape or type.
    """
    _check("thumbnail", image)
    return _small(_seen(image))


def fingerprint(image: Image) -> Fingerprint:
    """`phash`, `dhash` and `thumbnail` of an image, which is trimmed and made small once."""
    _check("fingerprint", image)
    seen = _seen(image)
    grey = _grey(seen)
    return Fingerprint(_dct_hash(grey), _difference_hash(grey), _small(seen))


def _inner(image: Image) -> Image:
    """Scaled to a longest side of LONGEST and trimmed: a box is as exact in a small copy."""
    import cv2

    scale = LONGEST / max(image.shape[:2])
    if scale == 1:
        return trimmed(image, ramp=1)
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    return trimmed(resized, math.ceil(scale))


def _seen(image: Image) -> Image:
    """32 x 32 RGB: what hashes and thumbnail are made from. Two steps take a third of the time that
    the mean over fields of broken sizes does.
    """
    import cv2

    twice = cv2.resize(_inner(image), (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(twice, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _grey(seen: Image) -> Image:
    import cv2

    return np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), np.uint8)


def _dct_hash(grey: Image) -> int:
    basis = _dct_rows()
    # rounded: what is zero but for a float's last bits (flat, symmetric images) is zero everywhere
    low = np.round(basis @ grey.astype(np.float64) @ basis.T, 4).ravel()
    median = np.sort(low[1:])[len(low) // 2 - 1]  # of 63: np.median takes ten times as long
    offset = max(NOISE, OFFSET * float(np.sqrt(np.mean(low[1:] ** 2))))
    return _packed(low > median + offset)


def _difference_hash(grey: Image) -> int:
    import cv2

    small = cv2.resize(grey, (KEPT + 1, KEPT), interpolation=cv2.INTER_AREA)
    return _packed(cv2.subtract(small[:, 1:], small[:, :-1]) > STEP)  # uint8: never below 0


def _packed(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _small(seen: Image) -> bytes:
    import cv2

    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return bytes(cv2.resize(seen, size, interpolation=cv2.INTER_AREA).tobytes())


def _check(name: str, image: Image) -> None:
    if image.shape[2:] != (CHANNELS,) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"{name} takes a uint8 image of height x width x 3, this is {image.dtype} {image.shape}"
        )


@cache
def _dct_rows() -> np.ndarray[Any, np.dtype[np.float64]]:
    """The first KEPT rows of the orthonormal DCT-II matrix of size SIDE."""
    frequency = np.arange(KEPT)[:, None]
    position = np.arange(SIDE)[None, :]
    rows: np.ndarray[Any, np.dtype[np.float64]]
    rows = np.cos(np.pi * (2 * position + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows
