"""Image bytes to pixels, and pixels to pixels without alpha."""

from __future__ import annotations

import numpy as np

from models.base import Image

GREY, RGB, RGBA = 1, 3, 4  # channels


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
    """RGB uint8 (height, width, 3): an RGBA image composited over white, an RGB one as it is."""
    if image.shape[2] == RGB:
        return image
    alpha = image[..., 3:].astype(np.uint16)
    blended = image[..., :3] * alpha + 255 * (255 - alpha) + 127  # at most 255 * 255 + 127: fits
    return (blended // 255).astype(np.uint8)
