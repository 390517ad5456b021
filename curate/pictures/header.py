"""What an image's header says, before anything is decoded: a few kB can say 13 000 x 13 000."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

# what both PIL (which reads the header) and the decoders know; no other header is parsed
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
DECODING = "Image decoding error"  # img2dataset's words, as the next one
AREA = "image area too large"
PNG = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 1 << 20  # OpenCV's
ORIENTATION, TILE_WIDTH, TILE_HEIGHT = 0x0112, 322, 323  # TIFF's tags, the first one EXIF's too
TRANSPOSED = 5  # orientations from here on swap width and height
_SIZ = re.compile(rb"\xff\x4f\xff\x51.{4}(.{16})", re.DOTALL)  # JPEG 2000: right end, left end


class Unusable(ValueError):  # noqa: N818 - an outcome
    """Why an image cannot be had; its text is what `samples.error_message` says."""


@dataclass(frozen=True)
class Header:
    """An image file by its content.

    kind: as in DownloadConfig.image_types. width, height: of the upright image.
    orientation: EXIF's 1 to 8, what the decoded pixels still need; 1 for TIFF, whose decoder turns
    them itself. grey: one channel. plain: one image of 8-bit RGB or grey without alpha.
    """

    kind: str
    width: int
    height: int
    orientation: int
    grey: bool
    plain: bool
    interlaced: bool

    @property
    def raw_size(self) -> tuple[int, int]:
        """Width and height as the file stores them."""
        swapped = self.orientation >= TRANSPOSED
        return (self.height, self.width) if swapped else (self.width, self.height)


def read_header(body: bytes, max_pixels: int) -> Header:
    """Raises Unusable for what is no image of a known format, or has more than `max_pixels`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            header, largest = _header(image), _largest(image, body)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(AREA) from error
    except Exception as error:  # hostile bytes make PIL's parsers raise nearly anything
        raise Unusable(DECODING) from error
    if max(largest, header.width * header.height) > max_pixels:
        raise Unusable(AREA)
    if not 0 < min(header.raw_size) <= max(header.raw_size) <= MAX_SIDE:
        raise Unusable(DECODING)
    if header.kind == "png" and not _whole_png(body):
        raise Unusable(DECODING)
    return header


def _header(image: Image) -> Header:
    kind = {"MPO": "jpeg"}.get(str(image.format), str(image.format).lower())
    orientation = 1 if kind == "tiff" else _orientation(image.info.get("exif"))
    width, height = reversed(image.size) if orientation >= TRANSPOSED else image.size
    grey, interlaced = image.mode == "L", bool(image.info.get("interlace"))
    return Header(kind, width, height, orientation, grey, _plain(image, kind), interlaced)


def _plain(image: Image, kind: str) -> bool:
    """Only said of what can be stored as it came; counting a GIF's frames would decode them."""
    if kind == "jpeg":
        return image.mode in ("L", "RGB")
    if kind not in ("png", "webp") or image.mode not in ("L", "RGB"):
        return False
    # of a PNG the mode is RGB for 16 bits too: how it is packed tells them apart
    packed = image.tile[0][3] if kind == "png" else image.mode  # type: ignore[attr-defined]
    return (
        packed == image.mode
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
    )


def _orientation(exif: Any) -> int:
    """1 where there is none. Not image.getexif(), which decodes a PNG to look behind its pixels."""
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(ORIENTATION)
    except Exception:  # hostile tags make PIL raise nearly anything
        return 1
    return value if isinstance(value, int) and value in range(1, 9) else 1


def _largest(image: Image, body: bytes) -> int:
    """The pixels of the largest thing that a decoder would set up, where that is not the image: a
    TIFF's tile, and what a JPEG 2000 codestream says against the box around it.
    """
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_HEIGHT, 0))
    if image.format == "JPEG2000":
        return max((_area(found[1]) for found in _SIZ.finditer(body)), default=0)
    return 0


def _area(ends: bytes) -> int:
    right, bottom, left, top = (int.from_bytes(ends[i : i + 4], "big") for i in (0, 4, 8, 12))
    return max(0, right - left) * max(0, bottom - top)


def _whole_png(body: bytes) -> bool:
    """Whether its chunks go on to the last one. libvips takes a PNG that is cut behind its pixels;
    OpenCV, through which the stored file will be read, sets up 2 GB for a chunk that says so.
    """
    at = len(PNG)
    while (end := at + 12 + int.from_bytes(body[at : at + 4], "big")) <= len(body):
        if body[at + 4 : at + 8] == b"IEND":
            return True
        at = end
    return False
