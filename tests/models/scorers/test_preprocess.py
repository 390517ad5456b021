"""preprocess: open_clip's own pixels, to the bit, in two halves."""

import cv2
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from models.decode import over_white
from models.scorers.preprocess import MAX_ASPECT, Preprocess, centre

SIZES = [(1, 1), (7, 5), (224, 224), (256, 256), (256, 341), (600, 400), (97, 1200), (1500, 2000)]
MODES = ["shortest", "longest", "squash"]


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth shades, edges and grain, as photos have them."""
    random = np.random.default_rng(height * 7919 + width)
    shades = random.integers(0, 256, (6, 8, channels), np.uint8)
    pixels = cv2.resize(shades, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    pixels[height // 3 :, width // 2 :] //= 2
    grain = random.integers(-9, 10, pixels.shape, np.int16)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def transform_of(mode: str, size: int = 224):
    return open_clip.image_transform(size, is_train=False, resize_mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [3, 4])
def test_the_values_are_open_clips_to_the_bit(mode: str, height: int, width: int, channels: int):
    """Both halves together are the whole transform of open_clip on the same picture."""
    image, transform = photo(height, width, channels), transform_of(mode)
    prepare = Preprocess(transform, mode)
    found = prepare.floats([prepare(image)], "cpu")
    assert torch.equal(found[0], transform(Image.fromarray(over_white(image))))


def test_a_batch_is_its_images_in_the_type_asked_for():
    """Images of all sizes stack; bf16 is the float32 values rounded once."""
    transform = transform_of("shortest", 32)
    prepare = Preprocess(transform, "shortest")
    images = [photo(height, width) for height, width in SIZES[2:]]
    pixels = [prepare(image) for image in images]
    assert {(p.shape, p.dtype.name) for p in pixels} == {((32, 32, 3), "uint8")}
    expected = torch.stack([transform(Image.fromarray(image)) for image in images])
    assert torch.equal(prepare.floats(pixels, "cpu"), expected)
    halves = prepare.floats(pixels, "cpu", torch.bfloat16)
    assert torch.equal(halves, expected.to(torch.bfloat16))


def test_an_image_without_pixels_is_a_reason():
    """What Pillow refuses is a line of text, no exception."""
    prepare = Preprocess(transform_of("shortest", 32), "shortest")
    for shape in ((0, 5, 3), (5, 0, 3)):
        assert prepare(np.zeros(shape, np.uint8)).startswith("image not prepared: ")


def test_very_long_images_are_cut_to_their_centre():
    """1 x 20 000 keeps its middle and does not grow to gigabytes; others are not touched."""
    line = np.zeros((1, 20_000, 3), np.uint8)
    line[:, 9_992:10_008] = 255
    assert centre(line).shape == (1, MAX_ASPECT, 3)
    assert (centre(line) == 255).all()
    square = photo(7, 9)
    assert np.array_equal(centre(square), square)
    assert Preprocess(transform_of("shortest"), "shortest")(line).shape == (224, 224, 3)
