"""Resize: the bytes of an image -> the bytes that are stored, and what is known of it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from dataclasses import dataclass, replace

from models.decode import decode, over_white
from models.phash import phash, thumbnail
from schemas.configs import DownloadConfig

# what both PIL (which reads the size) and OpenCV (which decodes) know; no other header is parsed
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
DECODING = "Image decoding error"  # img2dataset's words, as the next one
AREA = "image area too large"
PNG_LEVELS = 9


@dataclass(frozen=True)
class Picture:
    """What became of one body: an error, or what is stored and what is known of it."""

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
    thumbnail: bytes | None = None


class Pictures:
    """img2dataset's Resizer behind a check of the header. One call at a time per process: while it
    decodes, the Resizer sends the process's stdout and stderr to nowhere, which two threads would
    do to each other for good.
    """

    def __init__(self, config: DownloadConfig) -> None:
        """Raises ValueError for a quality that the format does not have."""
        if config.encode_format == "png" and config.encode_quality > PNG_LEVELS:
            raise ValueError(
                f"encode_quality is {config.encode_quality}: for png it is the compression level, "
                f"0 to {PNG_LEVELS}"
            )
        # img2dataset imports albumentations, which asks the network for its newest version else
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        from img2dataset.resizer import Resizer

        self.config = config
        self.resizer = Resizer(
            image_size=config.image_size,
            resize_mode=config.resize_mode,
            resize_only_if_bigger=config.resize_only_if_bigger,
            encode_quality=config.encode_quality,
            encode_format=config.encode_format,
            skip_reencode=config.skip_reencode,
            min_image_size=config.min_image_size,
            max_image_area=config.max_image_area,
            max_aspect_ratio=config.max_aspect_ratio,
        )
        logging.getLogger("exifread").setLevel(logging.CRITICAL)  # logs each file without EXIF

    def resized(self, body: bytes) -> Picture:
        """A downloaded body, resized and encoded anew as the config says."""
        if (header := _header(body, self.config.max_pixels)).error:
            return header
        encoded, width, height, *original, error = self.resizer(io.BytesIO(body))
        if error is not None:
            return Picture(str(error) or DECODING)
        stored = replace(header, suffix=self.config.encode_format, width=width, height=height)
        return _described(stored, body, encoded, *original)

    def unchanged(self, body: bytes) -> Picture:
        """An image that is at hand: jpg, png or webp that can be decoded, kept byte for byte."""
        if (header := _header(body, self.config.max_pixels)).error:
            return header
        if header.suffix not in SUFFIXES.values():
            return Picture(f"{header.suffix} is not jpg, png or webp")
        return _described(header, body, body, header.width, header.height)


def _described(
    stored: Picture,
    body: bytes,
    encoded: bytes,
    original_width: int | None,
    original_height: int | None,
) -> Picture:
    try:
        pixels = over_white(decode(encoded))
    except ValueError:
        return Picture(DECODING)
    return replace(
        stored,
        encoded=encoded,
        original_width=original_width,
        original_height=original_height,
        exif=_exif(body),
        sha256=hashlib.sha256(body).hexdigest(),
        phash=phash(pixels),
        thumbnail=thumbnail(pixels),
    )


def _header(body: bytes, max_pixels: int) -> Picture:
    """Size and format by the header, nothing decoded: a few kB can say 13 000 x 13 000."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            (width, height), kind = image.size, str(image.format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Picture(AREA)
    except Exception:  # hostile bytes make PIL's parsers raise nearly anything
        return Picture(DECODING)
    if width * height > max_pixels:
        return Picture(AREA)
    return Picture(None, suffix=SUFFIXES.get(kind, kind), width=width, height=height)


def _exif(body: bytes) -> str | None:
    """As img2dataset writes it: a JSON object of tags, {} without any, null where unreadable."""
    import exifread

    try:
        tags = exifread.process_file(io.BytesIO(body), details=False)
        return json.dumps({k: str(v).strip() for k, v in tags.items() if v is not None})
    except Exception:  # hostile tags make exifread raise nearly anything
        return None
