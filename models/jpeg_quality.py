"""How strongly a JPEG was compressed: the quality that libjpeg's encoder would have been told.

Read from the file's own quantisation table (its first component's, luma), without decoding. IJG's
scale: a table is K.1 of ITU-T T.81 times 5000 / q below 50, 200 - 2 q from there on, in per cent.
The answer is exact for what libjpeg wrote, the nearest table for other encoders, and says nothing
of what an image went through before it was saved again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np

LUMA = (  # T.81, table K.1, row by row
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
HALF = 50  # the quality at which K.1 is used as it is
MARK = b"\xff\xd8"  # that a JPEG begins with
FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)


def jpeg_quality(data: bytes) -> int | None:
    """1..100, or None for what is no JPEG, or one whose header is broken or has no tables."""
    table = _luma_table(data)
    if table is None or len(table) != len(LUMA):
        return None
    return 1 + int(np.abs(_tables() - np.array(table)).sum(axis=1).argmin())


def _luma_table(data: bytes) -> Sequence[int] | None:
    """The first component's table, row by row, from the header alone."""
    from PIL.JpegImagePlugin import JpegImageFile

    if not data.startswith(MARK):
        return None
    try:
        image = JpegImageFile(BytesIO(data))
        table: Sequence[int] = image.quantization[image.layer[0][3]]
    except FAULTS:  # Pillow's, of a header that is cut off or lies
        return None
    return table


@cache
def _tables() -> np.ndarray[Any, np.dtype[np.int64]]:
    """libjpeg's baseline tables of the qualities 1..100: int64 (100, 64)."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < HALF, 5000 // quality, 200 - 2 * quality)
    table: np.ndarray[Any, np.dtype[np.int64]] = (np.array(LUMA) * percent + 50) // 100
    return table.clip(1, 255)
