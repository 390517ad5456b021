import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decode import decode, over_white


def encoded(pixels: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


def outcome(data: bytes):
    """Type and whether the channels are 3 or 4, or the text of the error."""
    try:
        image = decode(data)
    except ValueError as error:
        return str(error)
    return str(image.dtype), image.shape[2] in {3, 4}


def test_colour_is_rgb():
    """A pure red file decodes to (255, 0, 0)."""
    red = np.zeros((3, 5, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    image = decode(encoded(red))
    assert image.shape == (3, 5, 3)
    assert image.dtype == np.uint8
    assert (image == [255, 0, 0]).all()


def test_grey_becomes_rgb():
    """A grey file has three equal channels."""
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = decode(encoded(grey))
    assert image.shape == (3, 4, 3)
    assert (image == grey[..., None]).all()


def test_sixteen_bits_become_eight():
    """The high byte of a 16-bit file is kept."""
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    assert decode(encoded(deep))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_alpha_is_kept():
    """A file with alpha decodes to RGBA in that order."""
    bgra = np.array([[[1, 2, 3, 4]]], np.uint8)
    assert decode(encoded(bgra)).tolist() == [[[3, 2, 1, 4]]]


@pytest.mark.parametrize("data", [b"", b"x", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_other_bytes_are_undecodable(data):
    """Bytes that are no image raise one plain error."""
    with pytest.raises(ValueError, match=r"^undecodable image$"):
        decode(data)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_decodes_or_is_refused(data):
    """Flipped and missing bytes give uint8 pixels or the one error, nothing else."""
    kind = data.draw(st.sampled_from([".png", ".jpg", ".webp", ".bmp"]))
    raw = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(16, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(16, len(raw)))
    found = outcome(bytes(raw[:cut]))
    assert found in {("uint8", True), "undecodable image"}


def test_alpha_is_composited_over_white():
    """Clear pixels are white, opaque ones their colour, half-clear ones half way."""
    rgba = np.array([[[9, 9, 9, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    assert over_white(rgba).tolist() == [[[255, 255, 255], [10, 20, 30], [127, 127, 127]]]


def test_compositing_matches_the_formula_everywhere():
    """Every colour and alpha gives round(c * a + 255 * (1 - a)) with a in 0..1."""
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    exact = (colour * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(over_white(rgba)[..., 0] - exact).max() <= 0.5
