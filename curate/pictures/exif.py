"""EXIF: the tags of an image file as the JSON that img2dataset writes, at a bounded cost.

exifread, which img2dataset reads them with, believes every count and offset. In 64 kB of JPEG 2 600
tags can share one text, which is 85 MB of JSON, and IFDs can overlap in chains that take minutes.
All it does is seek and read, a number at a time, so what is counted here is its reads and the bytes
that they give: no second parser has to walk the file in the same way.
"""

from __future__ import annotations

import io
import json

# What the numbers of 999 strips, a palette, a small colour profile and a hundred tags take is
# 5 000 reads; a page of a TIFF takes 100 beside its strips.
MAX_READS = 20_000  # each takes 1 to 3 microseconds
MAX_READ_BYTES = 160_000  # what lies before the EXIF of a JPEG counts twice
MAX_JSON = 1 << 18  # characters
HEIC = slice(4, 12), b"ftypheic"  # its boxes can repeat without a read; no other reader knows it


class _TooMuch(Exception):  # noqa: N818 - an outcome
    """Not one of the errors that exifread goes on after."""


class _Metered(io.BytesIO):
    """A file that can be read so often and so much, and then raises _TooMuch."""

    reads_left = MAX_READS
    bytes_left = MAX_READ_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        most = self.bytes_left + 1
        found = super().read(most if size is None or size < 0 else min(size, most))
        self.reads_left -= 1
        self.bytes_left -= len(found)
        if self.reads_left < 0 or self.bytes_left < 0:
            raise _TooMuch
        return found


def exif_json(body: bytes) -> str | None:
    """An object of tags, {} without any; None where they are unreadable or too many."""
    import exifread

    where, mark = HEIC
    if body[where] == mark:
        return None
    try:
        tags = exifread.process_file(_Metered(body), details=False)
        found = json.dumps({k: str(v).strip() for k, v in tags.items() if v is not None})
    except Exception:  # hostile tags make exifread raise nearly anything
        return None
    return found if len(found) <= MAX_JSON else None
