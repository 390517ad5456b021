"""Perceptual hash and thumbnail of what an image shows, without its border: both survive
re-encoding, resizing and small crops. The hash finds, the thumbnail tells colours apart.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from models.base import Image

SIDE = 32  # of the grey image that is transformed
CHANNELS = 3
KEPT = 8  # lowest frequencies, each way
OFFSET = 0.02  # of the coefficients' rms: what is nearer to their median is zero
THUMBNAIL_SIDE = 8


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
    return _hash(trimmed(image))


def thumbnail(image: Image) -> bytes:
    """The trimmed RGB image (height x width x 3, uint8), area-resized to 8 x 8: 192 bytes, row by
    row.

    Raises ValueError for any other shape or type.
    """
    _check("thumbnail", image)
    return _small(trimmed(image))


def fingerprint(image: Image) -> tuple[int, bytes]:
    """`phash` and `thumbnail` of an image, which is trimmed once."""
    _check("fingerprint", image)
    inner = trimmed(image)
    return _hash(inner), _small(inner)


def _hash(inner: Image) -> int:
    import cv2

    grey = cv2.cvtColor(inner, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    basis = _dct_rows()
    # rounded: what is zero but for a float's last bits (flat, symmetric images) is zero everywhere
    low = np.round(basis @ small @ basis.T, 4).ravel()
    median = np.sort(low[1:])[len(low) // 2 - 1]  # of 63: np.median takes ten times as long
    bits = low > median + OFFSET * np.sqrt(np.mean(low[1:] ** 2))
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
