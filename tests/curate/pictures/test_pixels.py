import numpy as np
import pytest

from curate.pictures.header import Header, Unusable, read_header
from curate.pictures.pixels import decode_upright, held_pixels
from tests.kinds import every_kind, saved, smooth


def header(kind: str, width: int, height: int, *, interlaced: bool = False) -> Header:
    return Header(kind, width, height, 1, grey=False, plain=True, interlaced=interlaced)


@pytest.mark.parametrize(
    ("size", "needed", "area"),
    [
        ((2000, 1500), None, 2000 * 1500),
        ((2000, 1500), (256, 192), 2000 * 1500 // 16),
        ((512, 384), (256, 192), 512 * 384),
        ((974, 732), (256, 192), 974 * 732 // 4),
        ((972, 732), (256, 192), 972 * 732),
        ((9000, 9000), (256, 256), 9000 * 9000 // 64),
        ((9000, 3), (256, 1), 9000 * 3),
    ],
)
def test_a_jpeg_stays_nearly_twice_as_large_as_needed(size, needed, area):
    """The largest of 1/2, 1/4 and 1/8 at which both sides are 1.9 times what is needed, or more."""
    assert held_pixels(header("jpeg", *size), needed) == area


def test_only_a_png_that_is_narrowed_in_stripes_takes_no_room():
    """Interlaced ones, small ones and whole ones are in memory as one piece."""
    area = 13_000 * 13_000
    assert held_pixels(header("png", 13_000, 13_000), (256, 256)) == 0
    assert held_pixels(header("png", 13_000, 13_000), None) == area
    assert held_pixels(header("png", 13_000, 13_000, interlaced=True), (256, 256)) == area
    assert held_pixels(header("webp", 13_000, 13_000), (256, 256)) == area


def test_grey_stays_grey_at_reduced_scale():
    """A grey JPEG has one channel, reduced or not."""
    from PIL import Image

    body = saved(Image.fromarray(smooth(1, 400, 300, 1)[..., 0]), "JPEG")
    assert decode_upright(body, read_header(body, 10**6), None).shape == (300, 400)
    assert decode_upright(body, read_header(body, 10**6), (40, 30)).shape == (75, 100)


def test_pixels_of_another_size_than_the_header_says_are_refused():
    """What was let in by the header's size must have it."""
    kinds = every_kind()
    for name in ("jpeg", "png", "gif", "bmp"):
        with pytest.raises(Unusable, match="Image decoding error"):
            decode_upright(kinds[name], header(name, 79, 60), None)


def test_an_interlaced_png_is_read():
    """All seven passes are put together."""
    body = every_kind()["png interlaced"]
    pixels = decode_upright(body, read_header(body, 10**6), None)
    assert np.array_equal(pixels[..., ::-1], smooth(6))
