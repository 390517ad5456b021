"""EXIF blocks as cameras write them and as attackers do, and files around them."""

from __future__ import annotations

import struct

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.kinds import saved, smooth

HEAD = 8  # bytes before the first IFD
ENTRIES = 4_000  # that each of the overlapping IFDs says it has
FITTING = 2_600  # entries that leave half of an APP1 segment for a text


def camera() -> bytes:
    """A photo's tags: texts, numbers, fractions, places, a colour table, two IFDs below."""
    exif = Image.Exif()
    exif[0x010E], exif[0x010F], exif[0x0110] = "caf\u00e9".encode(), "Maker", "Model 9"
    exif[0x0112], exif[0x011A] = 6, IFDRational(300, 1)
    exif[0x0140] = tuple(range(768))
    shot = exif.get_ifd(0x8769)
    shot[0x829A], shot[0x9003], shot[0x9000] = IFDRational(1, 250), "2020:01:02 03:04:05", b"0230"
    shot[0x9286], shot[0x927C], shot[0x8822] = b"ASCII\0\0\0note", b"maker's own", 2
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (IFDRational(52), IFDRational(31), IFDRational(1234, 100))
    return exif.tobytes().removeprefix(b"Exif\0\0")


def one_ifd(*entries: tuple[int, int, int], data: bytes = b"") -> bytes:
    """Entries of (tag, type, count) that all point at the same data."""
    at = HEAD + 2 + 12 * len(entries) + 4
    packed = b"".join(struct.pack("<HHII", *entry, at) for entry in entries)
    return b"II*\0" + struct.pack("<IH", HEAD, len(entries)) + packed + bytes(4) + data


def shared_text(tags: int = FITTING, characters: int = 32_000) -> bytes:
    """That many tags which all say the same text."""
    return one_ifd(*((0xC000 + i, 2, characters) for i in range(tags)), data=b"x" * characters)


def overlapping(ifds: int) -> bytes:
    """A chain of IFDs, four bytes from one to the next, of ENTRIES entries each."""
    block = bytearray(60_000)
    struct.pack_into("<4sI", block, 0, b"II*\0", HEAD)
    for at in range(HEAD, HEAD + 12 * ENTRIES + 2 * ifds, 2):
        struct.pack_into("<H", block, at, ENTRIES)
    for i in range(ifds):
        following = HEAD + 4 * (i + 1) if i < ifds - 1 else 0
        struct.pack_into("<I", block, HEAD + 4 * i + 2 + 12 * ENTRIES, following)
    return bytes(block)


def in_jpeg(block: bytes) -> bytes:
    """A JPEG whose first segment is that EXIF block, of less than 64 kB."""
    body, exif = saved(Image.fromarray(smooth(1)), "JPEG"), b"Exif\0\0" + block
    return body[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + body[2:]


def in_webp(block: bytes) -> bytes:
    """A WebP with that EXIF block, of any size."""
    return saved(Image.fromarray(smooth(1)), "WEBP", exif=block)


def in_tiff(block: bytes) -> bytes:
    """A TIFF that has the block's tags as its own, as PIL writes them."""
    return saved(Image.fromarray(smooth(1)), "TIFF", exif=block)
