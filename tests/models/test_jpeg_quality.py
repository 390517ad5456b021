from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.jpeg_quality import jpeg_quality

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def jpeg(quality=75, mode="RGB", **knobs):
    file = BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, "JPEG", quality=quality, **knobs)
    return file.getvalue()


@pytest.mark.parametrize("quality", range(1, 101))
def test_what_libjpeg_was_told(quality):
    """Every quality is read back exactly, from Pillow's files and from OpenCV's."""
    assert jpeg_quality(jpeg(quality)) == quality
    encoded = cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert jpeg_quality(encoded.tobytes()) == quality


@pytest.mark.parametrize("knobs", [{"mode": "L"}, {"mode": "CMYK"}, {"progressive": True}])
@pytest.mark.parametrize("quality", [5, 40, 75, 95])
def test_any_kind_of_jpeg(knobs, quality):
    """Grey, four colours and progressive files have the same table."""
    assert jpeg_quality(jpeg(quality, **knobs)) == quality


def test_other_tables_give_the_nearest_quality():
    """A table that libjpeg would not write gets the quality of the one next to it."""
    with Image.open(BytesIO(jpeg(60))) as image:
        tables = {key: [min(255, v + v % 2) for v in t] for key, t in image.quantization.items()}
    data = jpeg(50, qtables=tables)  # 50: the tables as they are
    with Image.open(BytesIO(data)) as image:
        assert image.quantization == tables
    assert abs(jpeg_quality(data) - 60) <= 2


def test_the_header_is_enough():
    """Pixels are not decoded: a file that is cut off after its header has its quality still."""
    data = jpeg(37)
    assert jpeg_quality(data[: data.index(b"\xff\xda") + 20]) == 37


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"GIF89a" + bytes(50), jpeg()[:30]]
)
def test_no_jpeg_no_quality(data):
    """Other files, and headers without a table, have no quality."""
    assert jpeg_quality(data) is None


def test_other_formats_have_none():
    """PNG and WebP are not JPEG."""
    for form in ("PNG", "WEBP"):
        file = BytesIO()
        Image.fromarray(PIXELS).save(file, form)
        assert jpeg_quality(file.getvalue()) is None


@given(st.integers(2, 700), st.binary(min_size=1, max_size=40))
def test_damaged_headers_never_raise(at, noise):
    """Any bytes over the header give a quality or None."""
    data = jpeg()
    found = jpeg_quality(data[:at] + noise + data[at + len(noise) :])
    assert found is None or 1 <= found <= 100
