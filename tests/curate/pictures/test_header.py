import re
import struct

import pytest
from PIL import Image

from curate.pictures.header import Unusable, read_header
from tests.kinds import chunk, every_kind, png, saved, smooth, turned

CAP = 90_000_000


def tiled_tiff(side: int) -> bytes:
    """An 80 x 60 grey TIFF of one tile, whose sides are `side`, and no pixels."""
    tags = {256: 80, 257: 60, 258: 8, 259: 1, 262: 1, 322: side, 323: side, 324: 8, 325: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("name", "body"), every_kind().items(), ids=list(every_kind()))
def test_every_kind_is_known_by_its_content(name: str, body: bytes):
    """The kind is the config's name for it, and the size that of the upright image."""
    header = read_header(body, CAP)
    kind = name.split(maxsplit=1)[0]
    assert header.kind == {"pgm": "ppm", "pbm": "ppm"}.get(kind, kind)
    swapped = name.endswith("turned") or re.search("turned [5678]", name)
    assert (header.width, header.height) == ((60, 80) if swapped else (80, 60))
    assert header.raw_size == ((80, 60) if kind != "tiff" or not swapped else (60, 80))


def test_a_png_is_not_decoded_to_look_for_its_orientation():
    """EXIF in front of the pixels counts, what comes behind them is not read."""
    behind = chunk(b"IEND", b"")
    whole = turned("PNG", 6)
    exif = whole[whole.index(b"eXIf") - 4 :]
    exif = exif[: 12 + struct.unpack(">I", exif[:4])[0]]
    late = png(9, 7, b"no zlib", 2).removesuffix(behind) + exif + behind
    assert read_header(late, CAP).orientation == 1
    assert read_header(whole, CAP).orientation == 6


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation):
    """Only 1 to 8 turn an image."""
    assert read_header(turned("JPEG", orientation), CAP).orientation == 1


def test_the_pixel_cap_counts_what_a_decoder_sets_up():
    """A TIFF's tile and a JPEG 2000's codestream may say more than the image around them."""
    assert read_header(tiled_tiff(80), CAP).width == 80
    with pytest.raises(Unusable, match=r"^image area too large$"):
        read_header(tiled_tiff(30_000), CAP)
    body = saved(Image.fromarray(smooth(1)), "JPEG2000")
    at = body.index(b"\xff\x4f\xff\x51") + 8
    lying = body[:at] + struct.pack(">II", 30_000, 30_000) + body[at + 8 :]
    assert read_header(body, CAP).width == 80
    with pytest.raises(Unusable, match=r"^image area too large$"):
        read_header(lying, CAP)


def test_pils_own_bomb_check_is_an_area():
    """A header beyond PIL's limit says the same as one beyond ours."""
    with pytest.raises(Unusable, match=r"^image area too large$"):
        read_header(png(60_000, 60_000, b""), 10**12)


def test_a_side_that_no_decoder_takes_is_refused():
    """OpenCV ends at 2**20 pixels a side."""
    with pytest.raises(Unusable, match=r"^Image decoding error$"):
        read_header(png((1 << 20) + 1, 1, b""), CAP)


def test_an_interlaced_png_is_known():
    """It cannot be read in stripes."""
    kinds = every_kind()
    assert read_header(kinds["png interlaced"], CAP).interlaced
    assert not read_header(kinds["png"], CAP).interlaced


def test_a_png_whose_chunks_do_not_end_is_refused():
    """OpenCV sets up 2 GB for a chunk that says so."""
    whole, end = every_kind()["png"], chunk(b"IEND", b"")
    endless = whole.removesuffix(end) + struct.pack(">I", 0x7FFFFFFF) + b"tEXt"
    for body in (endless, whole.removesuffix(end), whole[:-1]):
        with pytest.raises(Unusable, match=r"^Image decoding error$"):
            read_header(body, CAP)
    assert read_header(whole + b"behind it", CAP).kind == "png"
