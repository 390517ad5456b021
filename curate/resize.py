"""Resize: the bytes of an image -> the bytes that are stored, and what is known of it.

Sizes, pixels and bytes are those of img2dataset's Resizer (interpolations, borders, encoder), with
these differences: a JPEG much larger than what is stored is decoded at a reduced scale and a very
large PNG in stripes, EXIF's orientation is applied, 16 bits become 8 by their high byte, the alpha
of grey and of TIFF images is composited like any other, and a thin image cannot be enlarged beyond
`max_pixels`.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from curate.pictures.blur import Box, blurred, turned
from curate.pictures.exif import exif_json
from curate.pictures.header import AREA, DECODING, Header, Unusable, read_header
from curate.pictures.pixels import Size, decode_upright, held_pixels
from curate.pictures.quiet import prepare_codecs
from models.base import Image
from models.decode import decode, over_white
from models.phash import fingerprint
from schemas.configs import DownloadConfig

SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}  # what is stored
SMALL, RATIO = "image too small", "aspect ratio too large"  # img2dataset's words
ENCODING = "Image encoding error"
LARGE_PIXELS = 1 << 23  # such images are decoded one at a time
PATIENCE_S = 120.0  # a decoder that hangs keeps the others waiting no longer


@dataclass(frozen=True)
class Picture:
    """What became of one body: an error, or what is stored and what is known of it.

    width, height: as stored; original_width, original_height: of the upright original.
    """

    error: str | None
    encoded: bytes = b""
    suffix: str = ""
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    exif: str | None = None  # JSON
    sha256: str | None = None
    phash: int | None = None
    dhash: int | None = None
    thumbnail: bytes | None = None
    pixel_sha256: str | None = None


@dataclass(frozen=True)
class Layout:
    """The image is resized to `inner`, then padded or cropped to `canvas`, both centred."""

    inner: Size
    canvas: Size
    downscale: bool = False


class Pictures:
    """Any number of threads may call it at once; nothing is kept between calls."""

    def __init__(self, config: DownloadConfig) -> None:
        prepare_codecs(config.max_pixels)
        self.config = config
        self._large = threading.Lock()

    def resized(self, body: bytes, boxes: Sequence[Box] = ()) -> Picture:
        """A downloaded body, stored as the config says, with these boxes blurred."""
        try:
            header = read_header(body, self.config.max_pixels)
            self._admit(header)
            if self.config.reencode == "never":
                return self._kept(body, header)
            layout = self._layout(header.width, header.height)
            if not boxes and self._can_stay(header, layout):
                return self._kept(body, header)
            return self._encoded(body, header, layout, turned(boxes, header.orientation))
        except Unusable as error:
            return Picture(str(error))

    def unchanged(self, body: bytes) -> Picture:
        """An image that is at hand: jpg, png or webp that can be decoded, kept byte for byte."""
        try:
            return self._kept(body, read_header(body, self.config.max_pixels))
        except Unusable as error:
            return Picture(str(error))

    def laid_out(self, pixels: Image) -> Image:
        """Upright, opaque pixels as `resized` lays them out before it encodes them.

        Raises Unusable for a thin image that would grow beyond `max_pixels`.
        """
        height, width = pixels.shape[:2]
        layout = self._layout(width, height)
        return _framed(_scaled(pixels, layout), layout)

    def _admit(self, header: Header) -> None:
        """Raises Unusable for what the config does not let in."""
        config, sides = self.config, (header.width, header.height)
        if header.kind not in config.image_types:
            raise Unusable(f"image type {header.kind} is not allowed")
        if min(sides) < config.min_image_size:
            raise Unusable(SMALL)
        if header.width * header.height > config.max_image_area:
            raise Unusable(AREA)
        if max(sides) / min(sides) > config.max_aspect_ratio:
            raise Unusable(RATIO)

    def _layout(self, width: int, height: int) -> Layout:
        """Raises Unusable for a thin image that would grow beyond `max_pixels`."""
        side, sides, mode = self.config.image_size, (width, height), self.config.resize_mode
        match mode:
            case "no":
                return Layout(sides, sides)
            case "keep_ratio" | "center_crop":
                decisive = min(sides)
            case "border" | "keep_ratio_largest":
                decisive = max(sides)
            case _:
                assert_never(mode)
        if self.config.resize_only_if_bigger and decisive <= side:
            return Layout(sides, sides)
        inner = (_side(width, side / decisive), _side(height, side / decisive))
        if inner[0] * inner[1] > max(self.config.max_pixels, side * side):
            raise Unusable(RATIO)
        canvas = (side, side) if mode in ("border", "center_crop") else inner
        return Layout(inner, canvas, downscale=decisive > side)

    def _can_stay(self, header: Header, layout: Layout) -> bool:
        return (
            self.config.reencode == "if_needed"
            and header.plain
            and header.orientation == 1
            and SUFFIXES.get(header.kind) == self.config.encode_format
            and (header.width, header.height) == layout.inner == layout.canvas
        )

    def _encoded(
        self, body: bytes, header: Header, layout: Layout, boxes: Sequence[Box]
    ) -> Picture:
        import cv2

        needed = layout.inner if layout.downscale else None
        with self._turn(held_pixels(header, needed)):
            pixels = _scaled(decode_upright(body, header, needed), layout)
        pixels = _framed(blurred(pixels, boxes), layout)
        encoded = self._encode(pixels)
        height, width = pixels.shape[:2]
        code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB  # noqa: PLR2004
        shown = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
        picture = Picture(None, encoded, self.config.encode_format, width, height)
        return _described(picture, body, header, shown)

    def _encode(self, pixels: Image) -> bytes:
        import cv2

        kind = self.config.encode_format
        quality = {
            "jpg": cv2.IMWRITE_JPEG_QUALITY,
            "png": cv2.IMWRITE_PNG_COMPRESSION,
            "webp": cv2.IMWRITE_WEBP_QUALITY,
        }[kind]
        try:
            done, encoded = cv2.imencode(f".{kind}", pixels, [quality, self.config.quality])
        except cv2.error as error:  # more than 65 535 pixels wide, for one
            raise Unusable(ENCODING) from error
        if not done:
            raise Unusable(ENCODING)
        return bytes(encoded.tobytes())

    def _kept(self, body: bytes, header: Header) -> Picture:
        suffix = SUFFIXES.get(header.kind)
        if suffix is None:
            raise Unusable(f"{header.kind.upper()} is not jpg, png or webp")
        with self._turn(header.width * header.height):
            pixels = _read_back(body)
            height, width = pixels.shape[:2]
            return _described(Picture(None, body, suffix, width, height), body, header, pixels)

    @contextmanager
    def _turn(self, pixels: int) -> Iterator[None]:
        """One large image at a time, so that threads do not multiply what it takes."""
        if pixels <= LARGE_PIXELS:
            yield
            return
        mine = self._large.acquire(timeout=PATIENCE_S)
        try:
            yield
        finally:
            if mine:
                self._large.release()


def _side(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _scaled(pixels: Image, layout: Layout) -> Image:
    import cv2

    if pixels.shape[1::-1] == layout.inner:
        return pixels
    how = cv2.INTER_AREA if layout.downscale else cv2.INTER_LANCZOS4  # img2dataset's defaults
    return np.asarray(cv2.resize(pixels, layout.inner, interpolation=how), np.uint8)


def _framed(pixels: Image, layout: Layout) -> Image:
    import cv2

    (width, height), inner = layout.canvas, layout.inner
    if width > inner[0] or height > inner[1]:
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        right, bottom = width - inner[0] - left, height - inner[1] - top
        white, constant = (255, 255, 255), cv2.BORDER_CONSTANT
        pixels = cv2.copyMakeBorder(pixels, top, bottom, left, right, constant, value=white)
    elif layout.canvas != inner:
        left, top = (inner[0] - width) // 2, (inner[1] - height) // 2
        pixels = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    return pixels


def _read_back(encoded: bytes) -> Image:
    """What all later stages will see."""
    try:
        return over_white(decode(encoded))
    except ValueError as error:
        raise Unusable(DECODING) from error


def _described(picture: Picture, body: bytes, header: Header, shown: Image) -> Picture:
    """shown: RGB, what was encoded; of bytes that are kept what they decode to."""
    seen = fingerprint(shown)
    return replace(
        picture,
        original_width=header.width,
        original_height=header.height,
        exif=exif_json(body),
        sha256=hashlib.sha256(body).hexdigest(),
        phash=seen.phash,
        dhash=seen.dhash,
        thumbnail=seen.thumbnail,
        pixel_sha256=_pixel_sha256(shown),
    )


def _pixel_sha256(shown: Image) -> str:
    """Of height and width (8 bytes each, little-endian), then the RGB bytes row by row."""
    height, width = shown.shape[:2]
    found = hashlib.sha256(struct.pack("<QQ", height, width))
    found.update(np.ascontiguousarray(shown).data)
    return found.hexdigest()
