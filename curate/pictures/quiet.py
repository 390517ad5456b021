"""Quiet: the codecs' settings that hold for a whole process."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import warnings
from functools import cache


def prepare_codecs(max_pixels: int) -> None:
    """Make the decoders silent, single-threaded and without caches, and let PIL open that much."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    _prepare_once()


@cache
def _prepare_once() -> None:
    import cv2
    import pyvips

    cv2.setNumThreads(1)  # the workers are as many as the cores
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    pyvips.block_untrusted_set(True)
    for name in ("pyvips", "exifread", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they log each damaged file
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_libjpeg()


def _silence_libjpeg() -> None:
    """libjpeg and libpng inside OpenCV print a line per damaged file, and nothing turns that off.

    C's stream `stderr` is pointed to nowhere. File descriptor 2 stays as it is, and with it what
    Python, its faulthandler and C++ print; moving that aside and back around each call, as
    img2dataset does, is what two threads would do to each other for good.
    """
    if platform.libc_ver()[0] != "glibc":  # elsewhere it may be a constant
        return
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    nowhere = libc.fopen(os.fsencode(os.devnull), b"w")
    if nowhere:
        ctypes.c_void_p.in_dll(libc, "stderr").value = nowhere
