"""Small images of every kind that the web sends, encoded: the same bytes in every run."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 80, 60
ORIENTATION = 0x0112
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def smooth(seed: int, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> Pixels:
    """A smooth random image, (height, width, channels)."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    large = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
    return large.reshape(height, width, channels)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """As PIL writes it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(kind: str, orientation: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """An RGB image with that EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(Image.fromarray(smooth(1, width, height)), kind, exif=exif)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, rows: bytes, colour: int = 6, *, interlaced: bool = False
) -> bytes:
    """A PNG around rows that are filtered and compressed already."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(side: int) -> bytes:
    """A square RGBA PNG of one half-clear colour, in well under a MB."""
    row = b"\x00" + b"\x00\x80\xff\x80" * side
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # a flushed block can be repeated
    block = packer.compress(row * 100) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(row * (side % 100)) + packer.flush()
    check = 1
    for _ in range(side):
        check = zlib.adler32(row, check)
    return png(side, side, b"\x78\xda" + block * (side // 100) + rest + struct.pack(">I", check))


def interlaced_png(pixels: Pixels) -> bytes:
    """An RGB image as an Adam7 PNG."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [
        b"\x00" + row.tobytes()
        for x, y, across, down in passes
        for row in pixels[y::down, x::across]
        if row.size
    ]
    height, width = pixels.shape[:2]
    return png(width, height, zlib.compress(b"".join(rows)), 2, interlaced=True)


def _deep(channels: int) -> bytes:
    deep = smooth(9, channels=channels).astype(np.uint16) * 257
    return bytes(cv2.imencode(".png", deep)[1].tobytes())


def every_kind() -> dict[str, bytes]:
    """Name -> file: formats, colours, depths, transparency, animation, orientation."""
    rgb, other = Image.fromarray(smooth(1)), Image.fromarray(smooth(2))
    rgba = Image.fromarray(smooth(3, channels=4))
    grey = Image.fromarray(smooth(4, channels=1)[..., 0])
    grey_alpha = Image.merge("LA", [grey, Image.fromarray(smooth(5, channels=1)[..., 0])])
    grey16 = Image.fromarray(smooth(4, channels=1)[..., 0].astype(np.uint16) * 257)
    palette = rgb.quantize(32)
    moving = {"save_all": True, "append_images": [other]}
    return {
        "jpeg": saved(rgb, "JPEG", quality=90),
        "jpeg progressive": saved(rgb, "JPEG", quality=90, progressive=True),
        "jpeg grey": saved(grey, "JPEG"),
        "jpeg cmyk": saved(rgb.convert("CMYK"), "JPEG", quality=95),
        "jpeg 444": saved(rgb, "JPEG", subsampling=0),
        "png": saved(rgb, "PNG"),
        "png grey": saved(grey, "PNG"),
        "png rgba": saved(rgba, "PNG"),
        "png grey alpha": saved(grey_alpha, "PNG"),
        "png palette": saved(palette, "PNG"),
        "png palette alpha": saved(palette, "PNG", transparency=bytes(range(0, 256, 8))),
        "png 1 bit": saved(grey.convert("1"), "PNG"),
        "png rgb clear colour": saved(rgb, "PNG", transparency=(1, 2, 3)),
        "png grey clear": saved(grey, "PNG", transparency=7),
        "png grey 16": saved(grey16, "PNG"),
        "png rgb 16": _deep(3),
        "png rgba 16": _deep(4),
        "png interlaced": interlaced_png(smooth(6)),
        "png animated": saved(rgb, "PNG", **moving),
        "png text": saved(rgb, "PNG", icc_profile=b"no profile", dpi=(72, 72)),
        "gif": saved(palette, "GIF"),
        "gif clear": saved(palette, "GIF", transparency=3),
        "gif animated": saved(palette, "GIF", save_all=True, append_images=[other.quantize(16)]),
        "webp": saved(rgb, "WEBP", quality=80),
        "webp alpha": saved(rgba, "WEBP", quality=80),
        "webp lossless": saved(rgba, "WEBP", lossless=True),
        "webp animated": saved(rgb, "WEBP", **moving),
        "bmp": saved(rgb, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp grey": saved(grey, "BMP"),
        "tiff": saved(rgb, "TIFF"),
        "tiff lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff grey": saved(grey, "TIFF"),
        "tiff fax": saved(grey.convert("1"), "TIFF", compression="group4"),
        "tiff cmyk": saved(rgb.convert("CMYK"), "TIFF"),
        "tiff palette": saved(palette, "TIFF"),
        "tiff 16": saved(grey16, "TIFF"),
        "tiff alpha": saved(rgba, "TIFF"),
        "avif": saved(rgb, "AVIF"),
        "avif alpha": saved(rgba, "AVIF"),
        "avif grey": saved(grey, "AVIF"),
        "jpeg2000": saved(rgb, "JPEG2000"),
        "jpeg2000 alpha": saved(rgba, "JPEG2000"),
        "jpeg2000 grey": saved(grey, "JPEG2000"),
        "jpeg2000 bare": saved(rgb, "JPEG2000", no_jp2=True),
        "ppm": saved(rgb, "PPM"),
        "pgm": saved(grey, "PPM"),
        "pgm 16": saved(grey16, "PPM"),
        "pbm": saved(grey.convert("1"), "PPM"),
        **{f"jpeg turned {n}": turned("JPEG", n) for n in range(1, 9)},
        **{f"{kind.lower()} turned": turned(kind, 6) for kind in ("PNG", "WEBP", "TIFF", "AVIF")},
    }
