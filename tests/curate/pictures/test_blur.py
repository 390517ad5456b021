"""Boxes that are blurred, as img2dataset blurs them."""

from __future__ import annotations

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from curate.pictures.blur import BoxError, boxes_of, turned
from curate.resize import Pictures
from schemas.configs import DownloadConfig
from tests.kinds import ORIENTATION, saved, smooth

BOXES = [[0.1, 0.2, 0.5, 0.6], [0.7, 0.1, 0.9, 0.4]]


@pytest.mark.parametrize("resize_mode", ["no", "border", "keep_ratio", "center_crop"])
def test_boxes_are_blurred_as_img2dataset_blurs_them(resize_mode):
    """Between resizing and the border: the same bytes as its Resizer with its blurrer."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.resizer import Resizer

    body = saved(Image.fromarray(smooth(3, 120, 90)), "JPEG")
    theirs = Resizer(64, resize_mode, False, blurrer=BoundingBoxBlurrer())
    encoded = theirs(io.BytesIO(body), BOXES)[0]
    pictures = Pictures(DownloadConfig(image_size=64, resize_mode=resize_mode))
    assert pictures.resized(body, BOXES).encoded == encoded
    assert pictures.resized(body).encoded != encoded


def test_an_image_that_could_stay_is_encoded_anew_when_something_is_blurred():
    """The bytes that came would show what was to be hidden; without boxes they stay."""
    body = saved(Image.fromarray(smooth(4, 64, 64)), "JPEG")
    pictures = Pictures(DownloadConfig(image_size=64))
    assert pictures.resized(body).encoded == body
    assert pictures.resized(body, BOXES).encoded != body


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_image(orientation):
    """They are said of the pixels as the file has them: what they cover there is blurred."""
    pixels = np.full((80, 120, 3), 255, np.uint8)
    pixels[20:40, 12:48:4] = 0  # stripes where the box is
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    body = saved(Image.fromarray(pixels), "PNG", exif=exif)
    pictures = Pictures(DownloadConfig(resize_mode="no", encode_format="png"))

    def contrast(boxes: list) -> float:
        stored = pictures.resized(body, boxes).encoded
        return float(cv2.imdecode(np.frombuffer(stored, np.uint8), 0).std())

    assert contrast([[0.1, 0.25, 0.4, 0.5]]) < 0.7 * contrast([])
    assert contrast([[0.6, 0.6, 0.9, 0.9]]) == pytest.approx(contrast([]), rel=0.01)
    sides = turned([[0.1, 0.25, 0.4, 0.5]], orientation)[0]
    assert 0 <= sides[0] < sides[2] <= 1
    assert 0 <= sides[1] < sides[3] <= 1


@pytest.mark.parametrize(
    "cell", [0.5, "[]", [0.1, 0.2, 0.3, 0.4], [[0.1, 0.2, 0.3]], [[0, 0, 1, 2]], [[0.5, 0, 0.1, 1]],
             [[0, 0, float("nan"), 1]], [[None] * 4]]
)  # fmt: skip
def test_a_cell_that_says_no_boxes_is_an_error(cell):
    """An image whose faces cannot be found is not stored as if it had none."""
    with pytest.raises(BoxError, match="boxes to blur are not"):
        boxes_of(cell)


def test_grey_images_and_cells_without_boxes_are_fine():
    """null and [] blur nothing; a grey image is blurred too."""
    assert boxes_of(None) == boxes_of([]) == []
    body = saved(Image.fromarray(smooth(5, 80, 80)[..., 0]), "PNG")
    assert Pictures(DownloadConfig()).resized(body, BOXES).error is None
