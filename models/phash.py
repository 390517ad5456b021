"""Perceptual hashes and thumbnail of what an image shows, without its border: all survive
re-encoding, resizing and small crops. The hashes find, the thumbnail tells colours apart.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from models.base import Image

SIDE = 32  # of the grey image that is transformed
CHANNELS = 3
KEPT = 8  # lowest frequencies, each way; differences, each way
OFFSET = 0.02  # of the coefficients' rms: what is nearer to their median is zero
THUMBNAIL_SIDE = 8
STEP = 2  # grey levels by which the next field has to be brighter: what is flat has no bits


class Fingerprint(NamedTuple):
    """What an image looks like: two 64-bit hashes, and 192 bytes of RGB."""

    phash: int
    dhash: int
    thumbnail: bytes


def trimmed(image: Image, tolerance: int = 24) -> Image:
    """The image without its uniform border: the bounding box (a view) of the pixels that differ
    from the top left one by more than `tolerance` in some channel.

    The tolerance makes the noise of JPEG harmless. An image without such pixels stays whole.
    """
    import cv2

    corner = image[0, 0].astype(int)
    low, high = np.maximum(corner - tolerance, 0), np.minimum(corner + tolerance, 255)
    inside = cv2.inRange(image, low.astype(np.uint8), high.astype(np.uint8))
    left, top, width, height = cv2.boundingRect(cv2.bitwise_not(inside))
    return image[top : top + height, left : left + width] if width else image


def phash(image: Image) -> int:
    """DCT hash of an RGB image (height x width x 3, uint8), as an unsigned 64-bit number.

    The trimmed image is made grey and area-resized to 32 x 32; a bit says whether one of its 8 x 8
    lowest DCT-II coefficients is above the median of the 63 that are not the mean, plus 0.02 of
    their rms. The most significant bit is the mean's (1 but for black images); then vertical
    frequency by vertical frequency.
    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010),
    with two changes. Half of the coefficients of a symmetric drawing are zero but for noise, which
    falls on either side of a bare median; the offset lets them all be 0. And a crop of the border
    shifts everything inside it, so the border goes first.
    Raises ValueError for any other shape or type.
    """
    _check("phash", image)
    return _dct_hash(_grey(trimmed(image)))


def dhash(image: Image) -> int:
    """Difference hash of an RGB image (height x width x 3, uint8), as an unsigned 64-bit number.

    The trimmed image is made grey and area-resized to 32 x 32, that to 9 x 8; a bit says whether
    the field to the right is brighter by more than STEP. The most significant bit is the top
    left one; then row by row.
    Source: Krawetz, "Kind of Like That" (2013), with the step, so that noise in flat areas flips
    nothing. Raises ValueError for any other shape or type.
    """
    _check("dhash", image)
    return _difference_hash(_grey(trimmed(image)))


def thumbnail(image: Image) -> bytes:
    """The trimmed RGB image (height x width x 3, uint8), area-resized to 8 x 8: 192 bytes, row by
    row.

    Raises ValueError for any other shape or type.
    """
    _check("thumbnail", image)
    return _small(trimmed(image))


def fingerprint(image: Image) -> Fingerprint:
    """`phash`, `dhash` and `thumbnail` of an image, which is trimmed and made grey once."""
    _check("fingerprint", image)
    inner = trimmed(image)
    grey = _grey(inner)
    return Fingerprint(_dct_hash(grey), _difference_hash(grey), _small(inner))


def _grey(inner: Image) -> Image:
    """32 x 32: what both hashes are made from."""
    import cv2

    grey = cv2.cvtColor(inner, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _dct_hash(grey: Image) -> int:
    basis = _dct_rows()
    # rounded: what is zero but for a float's last bits (flat, symmetric images) is zero everywhere
    low = np.round(basis @ grey.astype(np.float64) @ basis.T, 4).ravel()
    median = np.sort(low[1:])[len(low) // 2 - 1]  # of 63: np.median takes ten times as long
    return _packed(low > median + OFFSET * np.sqrt(np.mean(low[1:] ** 2)))


def _difference_hash(grey: Image) -> int:
    import cv2

    small = cv2.resize(grey, (KEPT + 1, KEPT), interpolation=cv2.INTER_AREA)
    return _packed(cv2.subtract(small[:, 1:], small[:, :-1]) > STEP)  # uint8: never below 0


def _packed(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _small(inner: Image) -> bytes:
    import cv2

    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return bytes(cv2.resize(inner, size, interpolation=cv2.INTER_AREA).tobytes())


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
