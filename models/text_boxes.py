"""Regions of an image as quadrilaterals: which pixels they cover, and covered over by the colour
around them.

Boxes are float32 (n, 4, 2): x, y of four corners in pixels. A pixel on an edge is inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.base import Image

Boxes = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.uint8]]  # (height, width): 1 where something is, else 0


def sides(boxes: Boxes) -> tuple[Any, Any]:
    """The longer and the shorter side of each box, in pixels: (n,) and (n,)."""
    edges = np.linalg.norm(boxes[:, [1, 3]] - boxes[:, [0, 0]], axis=2)
    return edges.max(axis=1), edges.min(axis=1)


def covered(boxes: Boxes, height: int, width: int) -> Mask:
    """The union of the boxes; what of them lies outside of the image is left out."""
    import cv2

    mask = np.zeros((height, width), np.uint8)
    for corners in np.rint(boxes).astype(np.int32):
        cv2.fillPoly(mask, [corners], 1)
    return mask


def filled(image: Image, boxes: Boxes, ring: int) -> Image:
    """A copy of an RGB image, each box in one colour: the mean of the pixels at most `ring` away
    from it, sideways or diagonally, that are in no box.

    A box with none of these gets the mean of all pixels in no box; where boxes cover the whole
    image, the mean of the image. Colours come from the image as it was; where boxes overlap, the
    later one is seen.
    """
    result = image.copy()
    clear = 1 - covered(boxes, *image.shape[:2])
    for box in boxes:
        inside, rows, columns = _window(box, image, ring)
        colour = _around(image[rows, columns], inside, clear[rows, columns], ring)
        if colour is None:
            colour = _mean(image, clear if clear.any() else np.ones_like(clear))
        result[rows, columns][inside > 0] = np.rint(colour)
    return result


def _window(box: Boxes, image: Image, ring: int) -> tuple[Mask, slice, slice]:
    """A box and its ring cut out of the image: the box's mask there, and where that is. At least
    one pixel, so that OpenCV takes it.
    """
    corners = np.rint(box).astype(np.int64)
    size = np.array(image.shape[1::-1])
    left, top = np.clip(corners.min(axis=0) - ring, 0, size - 1)
    right, bottom = np.clip(corners.max(axis=0) + ring + 1, 1, size)
    rows, columns = slice(top, max(top + 1, bottom)), slice(left, max(left + 1, right))
    inside = covered(box[None] - (left, top), *image[rows, columns].shape[:2])
    return inside, rows, columns


def _around(image: Image, inside: Mask, clear: Mask, ring: int) -> Any:
    """The mean colour (3,) of a box's ring; None where nothing of it is clear."""
    import cv2

    if not inside.any():
        return None
    near = cv2.dilate(inside, np.ones((2 * ring + 1, 2 * ring + 1), np.uint8)) & clear
    return _mean(image, near) if near.any() else None


def _mean(image: Image, mask: Mask) -> Any:
    import cv2

    return cv2.mean(image, mask)[:3]
