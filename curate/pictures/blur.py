"""Blur: boxes of an image, such as faces, made unrecognisable, by img2dataset's own blurrer."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from curate.pictures.header import TRANSPOSED
from models.base import Image
from models.decode import decode, over_white

Box = Sequence[
    float
]  # left, top, right, bottom, each 0..1 of the image as it is stored in its file
SIDES = 4
MAX_BOXES = 1000
_ONE_AT_A_TIME = threading.Lock()  # the blurrer seeds numpy's and Python's global generators


class BoxError(ValueError):
    """A cell of a list that does not say where the boxes are."""


def boxes_of(value: Any) -> list[Box]:
    """The boxes of a list's cell; null has none.

    Raises BoxError for what is no list of four numbers from 0 to 1: an image whose faces cannot
    be found must not be stored as if it had none.
    """
    boxes = [] if value is None else value
    if not isinstance(boxes, list) or len(boxes) > MAX_BOXES or not all(map(_is_box, boxes)):
        raise BoxError("boxes to blur are not [[left, top, right, bottom], ...], each 0 to 1")
    return boxes


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != SIDES:
        return False
    if not all(isinstance(side, int | float) and math.isfinite(side) for side in box):
        return False
    left, top, right, bottom = box
    return bool(0 <= left <= right <= 1 and 0 <= top <= bottom <= 1)


def turned(boxes: Sequence[Box], orientation: int) -> list[Box]:
    """The same boxes in the upright image, whose EXIF orientation (1 to 8) was applied."""
    return [_turned(box, orientation) for box in boxes]


def _turned(box: Box, orientation: int) -> Box:
    left, top, right, bottom = box
    if orientation >= TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if orientation in (3, 4, 7, 8):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def blurred(pixels: Image, boxes: Sequence[Box]) -> Image:
    """The image (height, width, or with 3 channels; uint8) with these boxes blurred.

    Costs by the pixels and by the longest side of the largest box, whatever is covered. One over
    the whole image, in CPU seconds: 0.01 at 256 x 256, 0.4 at 1 000 x 1 000, 6 at 2 000 x 2 000,
    28 at 3 000 x 3 000; one of a fifth of each side, a tenth of that. One image at a time.
    """
    if not boxes:
        return pixels
    colour = pixels if pixels.ndim > 2 else np.repeat(pixels[..., None], 3, axis=2)  # noqa: PLR2004
    with _ONE_AT_A_TIME:
        return np.asarray(_blurrer()(colour, boxes), np.uint8)


def hidden(encoded: bytes, boxes: Sequence[Box], kind: str, quality: int) -> bytes:
    """A stored image with these boxes blurred, encoded anew as jpg, png or webp.

    What its file had beside the pixels is left behind: EXIF, which may hold a thumbnail; alpha
    is composited over white, as whoever found the boxes saw it. quality: of jpg and webp, 1 to 100.
    Raises ValueError where it cannot be decoded or encoded.
    """
    import cv2

    pixels = blurred(over_white(decode(encoded)), boxes)
    knobs = {
        "jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "png": [],
    }[kind]
    done, found = cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), knobs)
    if not done:
        raise ValueError(f"not to be encoded as {kind}")
    return bytes(found.tobytes())


@cache
def _blurrer() -> Any:
    # img2dataset imports albumentations, which asks the network for its newest version else
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.blurrer import BoundingBoxBlurrer

    return BoundingBoxBlurrer()
