"""Image bytes to pixels, and pixels to pixels without alpha."""

from __future__ import annotations

import numpy as np

from models.base import Image

GREY, RGB, RGBA = 1, 3, 4  # channels
BLOCK_PIXELS = 1 << 16


def decode(data: bytes) -> Image:
    """RGB, or RGBA where the file has alpha, as uint8 (height, width, 3 or 4).

    Grey becomes RGB, 16 bits become 8, of an animation the first frame is taken. EXIF rotation is
    not applied: neither img2dataset, which wrote the stored image, nor open_clip's reader applies
    it. Raises ValueError("undecodable image").
    """
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # an empty buffer, or more than OpenCV's 2**30 pixels
        raise ValueError("undecodable image") from error
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError("undecodable image")
    if pixels.dtype == np.uint16:
        pixels = (pixels // 256).astype(np.uint8)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]  # noqa: PLR2004 - two axes
    convert = {GREY: cv2.COLOR_GRAY2RGB, RGB: cv2.COLOR_BGR2RGB, RGBA: cv2.COLOR_BGRA2RGBA}.get(
        channels
    )
    if convert is None:
        raise ValueError("undecodable image")
    return np.asarray(cv2.cvtColor(pixels, convert), np.uint8)


def over_white(image: Image) -> Image:
    """RGB uint8 (height, width, 3): an RGBA image composited over white, an RGB one as it is.

    BGRA gives BGR.
    """
    if image.shape[2] == RGB:
        return image
    import cv2

    result = np.empty((*image.shape[:2], RGB), np.uint8)
    rows = max(1, BLOCK_PIXELS // max(1, image.shape[1]))  # no large temporary arrays
    for top in range(0, len(image), rows):
        block = image[top : top + rows]
        alpha = cv2.cvtColor(cv2.extractChannel(block, 3), cv2.COLOR_GRAY2RGB)
        colour = cv2.multiply(cv2.cvtColor(block, cv2.COLOR_RGBA2RGB), alpha, scale=1 / 255)
        result[top : top + rows] = cv2.add(colour, cv2.bitwise_not(alpha))
    return result
