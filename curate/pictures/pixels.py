"""Decode: the bytes of an image -> upright, opaque 8-bit pixels, no larger than they are needed.

Each format has the decoder that measured fastest (2 000 x 1 500 photos, clip-art PNGs): OpenCV, and
for PNG libvips, which gives stripes of rows, so that a drawing of 13 000 x 13 000 takes the memory
of one stripe. All beside the reduced ones are the pixels that OpenCV gives img2dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.pictures.header import DECODING, TRANSPOSED, Header, Unusable
from models.base import Image
from models.decode import GREY, RGB, RGBA, over_white

if TYPE_CHECKING:
    import pyvips

Size = tuple[int, int]  # width, height
GREY_ALPHA = 2  # channels
# A JPEG is decoded at 1/2, 1/4 or 1/8 where both sides stay this many times what they are resized
# to. At 2, on eight of scikit-image's photos, that is 47, 49 and 38 dB (medians) from the
# full decode, and at worst, in a picture of spokes, 35 and 30; storing as JPEG of quality 95 costs
# 34 to 41. With 3 the worst are 37 and 33 dB, and a 1 024 x 768 photo has to be decoded in full.
GAP = 1.9
LEAST_SIDE = 64  # of a reduced one: its last row and column may reach beyond the image
STRIPE_PIXELS = 1 << 16  # a quarter MB of RGBA: stays in the cache
WHOLE_PIXELS = 1 << 22  # larger PNGs are narrowed stripe by stripe, which differs by rounding


def decode_upright(body: bytes, header: Header, needed: Size | None) -> Image:
    """BGR (height, width, 3), or grey (height, width), of uint8.

    needed: what the upright image will be area-resized to, so that it may come smaller than it is;
    None: it comes whole. Alpha is composited over white, 16 bits become 8, of an animation the
    first frame is taken, EXIF's orientation is applied. Raises Unusable.
    """
    import cv2
    import pyvips

    if needed is not None and header.orientation >= TRANSPOSED:
        needed = (needed[1], needed[0])
    decode = _png if header.kind == "png" else _opencv
    try:
        return _turned(decode(body, header, needed), header.orientation)
    except (cv2.error, pyvips.Error, MemoryError) as error:
        raise Unusable(DECODING) from error


def held_pixels(header: Header, needed: Size | None) -> int:
    """How many of the image's pixels will be in memory at once while it is decoded."""
    area = header.width * header.height
    if header.kind == "jpeg":
        return area // _divisor((header.width, header.height), needed) ** 2
    return 0 if _narrowed(header, needed) and not header.interlaced else area


def _narrowed(header: Header, needed: Size | None) -> bool:
    large = header.width * header.height > WHOLE_PIXELS
    return header.kind == "png" and needed is not None and large


def _divisor(size: Size, needed: Size | None) -> int:
    if needed is None:
        return 1
    kept = (max(GAP * wanted, LEAST_SIDE) for wanted in needed)
    ratio = min(side / least for side, least in zip(size, kept, strict=True))
    return next((divisor for divisor in (8, 4, 2) if ratio >= divisor), 1)


def _opencv(body: bytes, header: Header, needed: Size | None) -> Image:
    import cv2

    divisor = _divisor(header.raw_size, needed) if header.kind == "jpeg" else 1
    flag = cv2.IMREAD_UNCHANGED
    if divisor > 1:
        colour = "GRAYSCALE" if header.grey else "COLOR"
        flag = getattr(cv2, f"IMREAD_REDUCED_{colour}_{divisor}") | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), flag)
    width, height = (-(-side // divisor) for side in header.raw_size)
    if pixels is None or pixels.shape[:2] != (height, width):  # it read another header than we
        raise Unusable(DECODING)
    return _opaque(_eight_bits(pixels), header.kind)


def _eight_bits(pixels: np.ndarray[Any, np.dtype[Any]]) -> Image:
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)  # as models.decode reads them
    if pixels.dtype != np.uint8:  # floats have no white
        raise Unusable(DECODING)
    return pixels


def _opaque(pixels: Image, kind: str) -> Image:
    import cv2

    channels = 1 if pixels.ndim == 2 else pixels.shape[2]  # noqa: PLR2004 - two axes
    if channels not in (GREY, RGB, RGBA):
        raise Unusable(DECODING)
    if channels < RGBA:
        return pixels
    if kind != "tiff":
        return over_white(pixels)
    # a TIFF's colours come multiplied with its alpha
    white = cv2.bitwise_not(cv2.cvtColor(cv2.extractChannel(pixels, 3), cv2.COLOR_GRAY2BGR))
    return np.asarray(cv2.add(cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR), white), np.uint8)


def _png(body: bytes, header: Header, needed: Size | None) -> Image:
    """With `needed`, a large one is brought to its width, all rows kept."""
    import cv2
    import pyvips

    image = pyvips.Image.pngload_buffer(body, access="sequential", fail_on="error")
    width, height = image.width, image.height
    if (width, height) != header.raw_size:
        raise Unusable(DECODING)
    narrow = needed[0] if needed and _narrowed(header, needed) else width
    pixels = np.empty((height, narrow, GREY if image.bands == GREY else RGB), np.uint8)
    for top, stripe in _stripes(image):
        rows, part = len(stripe), stripe
        if narrow < width:
            part = cv2.resize(stripe, (narrow, rows), interpolation=cv2.INTER_AREA)
        pixels[top : top + rows] = part.reshape(rows, narrow, -1)
    return pixels[..., 0] if pixels.shape[2] == GREY else pixels


def _stripes(image: pyvips.Image) -> Iterator[tuple[int, Image]]:
    """The first row's number, and some rows of grey or BGR."""
    import cv2
    import pyvips

    region, depth = pyvips.Region.new(image), np.uint16 if image.format == "ushort" else np.uint8
    width, height, bands = image.width, image.height, image.bands  # asking libvips takes a while
    convert = {RGB: cv2.COLOR_RGB2BGR, RGBA: cv2.COLOR_RGBA2BGRA}
    rows = max(1, STRIPE_PIXELS // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        values = np.frombuffer(region.fetch(0, top, width, count), depth)
        stripe = _eight_bits(values.reshape(count, width, bands))
        if bands == GREY_ALPHA:
            stripe = stripe[..., [0, 0, 0, 1]]
        elif bands in convert:
            stripe = np.asarray(cv2.cvtColor(stripe, convert[bands]), np.uint8)
        yield top, over_white(stripe) if bands in (GREY_ALPHA, RGBA) else stripe


def _turned(pixels: Image, orientation: int) -> Image:
    """Upright pixels, of what EXIF's orientation says how it lies."""
    if orientation >= TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
