"""Real photos that scikit-image's wheel has: one face, and none; pictures with faces pasted in."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Picture = np.ndarray[Any, np.dtype[np.uint8]]
FACE = (178, 70, 270, 180)  # of the astronaut, by eye: left, top, right, bottom in pixels of 512
PATCH = (100, 0, 340, 260)  # her head and what is around it, likewise
WITHOUT = (
    "brick",
    "grass",
    "gravel",
    "moon",
    "page",
    "text",
    "cell",
    "rocket",
    "hubble_deep_field",
)
PHOTOS = ("chelsea", "coffee", "rocket", "gravel")  # a cat, a cup, a launch, stones


def photo(name: str, side: int = 256) -> Picture:
    """The middle square of a photo: RGB uint8 (side, side, 3)."""
    from skimage import data

    found = np.asarray(getattr(data, name)())
    rgb = np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found[..., :3]
    least = min(rgb.shape[:2])
    top, left = ((s - least) // 2 for s in rgb.shape[:2])
    square = np.ascontiguousarray(rgb[top : top + least, left : left + least])
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def face_box() -> list[float]:
    """The astronaut's face in her photo, as shares of it."""
    return [side / 512 for side in FACE]


def pasted(ground: Picture, height: int, x: int, y: int) -> tuple[Picture, list[float]]:
    """The astronaut's head, its face so many pixels high, centred at x, y; the face's box."""
    from skimage import data

    scale = height / (FACE[3] - FACE[1])
    left, top, right, bottom = PATCH
    patch = data.astronaut()[top:bottom, left:right]
    small = cv2.resize(patch, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    of = [(FACE[i] - PATCH[i % 2]) * scale for i in range(4)]
    begin = (round(x - (of[0] + of[2]) / 2), round(y - (of[1] + of[3]) / 2))
    picture = ground.copy()
    rows, columns = small.shape[:2]
    picture[begin[1] : begin[1] + rows, begin[0] : begin[0] + columns] = small
    sides = ground.shape[1::-1]
    return picture, [(of[i] + begin[i % 2]) / sides[i % 2] for i in range(4)]


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, wide) * max(0.0, high)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (areas - both)
