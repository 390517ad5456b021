"""Perceptual hash: 64 bits of an image that survive re-encoding, resizing and small edits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from models.base import Image

SIDE = 32  # of the grey image that is transformed
CHANNELS = 3
KEPT = 8  # lowest frequencies, each way


def phash(image: Image) -> int:
    """DCT hash of an RGB image (height x width x 3, uint8), as an unsigned 64-bit number.

    The image is made grey and area-resized to 32 x 32; its 8 x 8 lowest DCT-II coefficients are
    compared with the median of the 63 that are not the mean. The most significant bit is the
    mean's (1 but for black images); then vertical frequency by vertical frequency.
    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).
    Raises ValueError for any other shape or type.
    """
    if image.shape[2:] != (CHANNELS,) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"phash takes a uint8 image of height x width x 3, this is {image.dtype} {image.shape}"
        )
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    basis = _dct_rows()
    # rounded: what is zero but for a float's last bits (flat, symmetric images) is zero everywhere
    low = np.round(basis @ small @ basis.T, 4).ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _dct_rows() -> np.ndarray[Any, np.dtype[np.float64]]:
    """The first KEPT rows of the orthonormal DCT-II matrix of size SIDE."""
    frequency = np.arange(KEPT)[:, None]
    position = np.arange(SIDE)[None, :]
    rows: np.ndarray[Any, np.dtype[np.float64]]
    rows = np.cos(np.pi * (2 * position + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows
