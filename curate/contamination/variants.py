"""Variants: an evaluation image -> the hashes and thumbnails that its copies in a pool may have.

The pool's hash is of the whole stored image without its border, so an item is treated as a copy may
have been and then as the download treats what it stores:

1. The whole image, as it is and made smaller and through JPEG by DAMAGE: what ringing does
   to the edge of a drawing on white decides where its border ends.
2. Crops: of each side one of six windows, WINDOWS, which together are near every crop of up to
   `crop` of a side.
3. All of that mirrored.

Of random crops of up to 10 % each way such windows find 99 % in photos and 76 % in drawings on
white, where all windows at steps of 1/60 of a side find 100 and 82 %, and three fixed ones 51 %.
The JPEG variants take the recall of resized, recompressed drawings whose shorter side is 128 or
more from 0.967 to 0.997; icons that were made smaller than that at a low quality stay below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from curate.pictures.header import Unusable, read_header
from curate.pictures.pixels import decode_upright
from curate.pictures.quiet import prepare_codecs
from curate.resize import Pictures
from models.base import Image
from models.phash import fingerprint
from schemas.configs import DownloadConfig, EvaluationItems

MIN_DISTINCT_BITS = 4  # a hash with fewer ones or zeros says nothing, as PerceptualDuplicates'
SIDE = 256  # an item's shorter side at most: the hash looks at 32 x 32
LONGEST = 4096
CROP_SIZE = 160  # at which crops are laid out: enlarging them is what takes time
# what is cut off at the two ends of a side, in sixths of `crop`
WINDOWS = ((0, 0), (2, 2), (3, 1), (1, 3), (5, 0), (0, 5))
SIXTHS = 6
DAMAGE = ((1.0, 85), (1.0, 70), (1.0, 55), (0.7, 75), (0.5, 92), (0.5, 70))  # scale, quality

Fingerprint = tuple[int, bytes]  # pHash and thumbnail


class Variants:
    """Any number of threads may call it at once.

    stored: the config that the pool's `samples` were made with, {} for none.
    """

    def __init__(self, config: EvaluationItems, stored: Mapping[str, Any]) -> None:
        known = {k: v for k, v in stored.items() if k in DownloadConfig.model_fields}
        download = DownloadConfig(**known)
        prepare_codecs(download.max_pixels)
        self.mirror, self.crop = config.mirror, config.crop
        self.max_pixels = download.max_pixels
        self.pictures = Pictures(download)
        small = min(CROP_SIZE, download.image_size)
        self.small_pictures = Pictures(download.model_copy(update={"image_size": small}))

    def image(self, body: bytes) -> Image:
        """RGB, upright and opaque, no larger than is needed. Raises Unusable, a ValueError."""
        import cv2

        header = read_header(body, self.max_pixels)
        scale = SIDE / min(header.width, header.height)
        scale = min(1.0, scale, LONGEST / max(header.width, header.height))
        size = max(1, round(header.width * scale)), max(1, round(header.height * scale))
        pixels = decode_upright(body, header, size if scale < 1 else None)
        if pixels.shape[1::-1] != size:
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB  # noqa: PLR2004
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)

    def views(self, image: Image) -> list[Image]:
        """The image and, where asked for, its mirror image."""
        return [image, np.ascontiguousarray(image[:, ::-1])] if self.mirror else [image]

    def stored(self, image: Image, small: bool = False) -> Image:
        """As the download lays out what it stores; as it is where that would refuse it."""
        try:
            return (self.small_pictures if small else self.pictures).laid_out(image)
        except Unusable:
            return image

    def fingerprints(self, image: Image) -> list[Fingerprint]:
        """The distinct ones of all variants, sorted; [] for an image without information."""
        found = set()
        for view in self.views(image):
            for whole in _damaged(view):  # images that were at hand are stored as they came
                found |= {_print(whole), _print(self.stored(whole))}
            found |= {_print(self.stored(part, small=True)) for part in _crops(view, self.crop)}
        return sorted(f for f in found if says_something(f[0]))


def _print(image: Image) -> Fingerprint:
    found = fingerprint(image)
    return found.phash, found.thumbnail


def says_something(phash: int) -> bool:
    """Whether a hash tells images apart: a blank one has hardly a bit."""
    return min(phash.bit_count(), 64 - phash.bit_count()) >= MIN_DISTINCT_BITS


def _damaged(image: Image) -> Iterator[Image]:
    import cv2

    yield image
    height, width = image.shape[:2]
    for scale, quality in DAMAGE:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        yield np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _crops(image: Image, crop: float) -> Iterator[Image]:
    """The image through each pair of windows that cuts something off."""
    height, width = image.shape[:2]
    seen = {(0, height, 0, width)}
    for above, below in WINDOWS:
        for left, right in WINDOWS:
            cut = [n * crop / SIXTHS for n in (above, below, left, right)]
            top, bottom = round(cut[0] * height), height - round(cut[1] * height)
            begin, end = round(cut[2] * width), width - round(cut[3] * width)
            if (top, bottom, begin, end) not in seen and top < bottom and begin < end:
                seen.add((top, bottom, begin, end))
                yield np.ascontiguousarray(image[top:bottom, begin:end])
