"""EXIF: exifread's tags for what cameras write, null at a small cost for what attackers do."""

import io
import json
import time
import tracemalloc

import exifread
import pytest
from PIL import Image

from curate.pictures.exif import MAX_JSON, MAX_READ_BYTES, exif_json
from curate.resize import Pictures
from schemas.configs import DownloadConfig
from tests.curate.pictures.blocks import (
    camera,
    in_jpeg,
    in_tiff,
    in_webp,
    one_ifd,
    overlapping,
    shared_text,
)
from tests.kinds import every_kind, saved, smooth

ASCII, BYTES, LONG, RATIO = 2, 7, 4, 5
UNKNOWN, VERSION, COMPRESSION = 0xC000, 0x9000, 0x0103
BOMBS = {
    "a text, in JPEG": in_jpeg(shared_text()),
    "a text, in WebP": in_webp(shared_text(200, 1_000_000)),
    "a text, in TIFF": shared_text(200, 1_000_000),
    "IFDs, in JPEG": in_jpeg(overlapping(100)),
    "IFDs, in WebP": in_webp(overlapping(2000)),
    "characters": in_jpeg(one_ifd(*[(VERSION, ASCII, 40_000)] * 1000, data=b"x" * 40_000)),
    "fractions": in_jpeg(
        one_ifd(*((UNKNOWN + i, RATIO, 999) for i in range(1000)), data=bytes(range(250)) * 32)
    ),
    "looked up": in_jpeg(one_ifd(*[(COMPRESSION, LONG, 999)] * 1000, data=bytes(range(250)) * 16)),
    "bytes": in_jpeg(one_ifd(*[(VERSION, BYTES, 999)] * 1000, data=b"\xff" * 999)),
    "chunks": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x08" + bytes(10_000_000),
    "segments": b"\xff\xd8" + b"\xff\xe0\0\x08JFIF\0\0" * 100_000,
    "long segments": b"\xff\xd8" + (b"\xff\xe0\xff\xffJFIF\0" + bytes(65_528)) * 100,
}


def theirs(body: bytes) -> str:
    """What img2dataset writes."""
    tags = exifread.process_file(io.BytesIO(body), details=False)
    return json.dumps({k: str(v).strip() for k, v in tags.items() if v is not None})


@pytest.mark.parametrize(("name", "body"), every_kind().items(), ids=list(every_kind()))
def test_every_kind_has_the_tags_that_exifread_finds(name: str, body: bytes):
    """The JSON is img2dataset's, character by character; {} for kinds that exifread passes over."""
    found = exif_json(body)
    assert found == theirs(body)
    assert (found == "{}") == (not name.startswith(("tiff", "jpeg turned", "webp turned")))


@pytest.mark.parametrize("around", [in_jpeg, in_webp, in_tiff])
def test_a_cameras_tags_are_all_there(around):
    """Texts, fractions, a colour table and IFDs below come as exifread says them."""
    body = around(camera())
    found = json.loads(exif_json(body) or "")
    assert found == json.loads(theirs(body))
    assert found["Image Make"] == "Maker"
    assert found["Image ImageDescription"].startswith("caf")  # in a TIFF, PIL writes no accents
    assert found["EXIF ExposureTime"] == "1/250"
    assert found["GPS GPSLatitude"] == "[52, 31, 617/50]"


def test_a_photo_behind_other_segments_and_a_book_keep_their_tags():
    """An EXIF behind 64 kB of Photoshop's, and the IFDs of 100 pages, are read."""
    jpeg = in_jpeg(camera())
    behind = b"\xff\xd8\xff\xe0\xff\xffPhotoshop 3.0" + bytes(0xFFFF - 15) + jpeg[2:]
    assert exif_json(behind) == theirs(behind)
    assert "Maker" in theirs(behind)
    page = Image.fromarray(smooth(1))
    book = saved(page, "TIFF", save_all=True, append_images=[page] * 99)
    assert exif_json(book) == theirs(book)
    assert "IFD 99 ImageWidth" in theirs(book)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_and_has_no_tags(name: str):
    """In less than 0.2 s of processor time and 20 MB, whatever its counts and offsets say."""
    exif_json(BOMBS[name])
    began = time.thread_time()
    assert exif_json(BOMBS[name]) is None
    assert time.thread_time() - began < 0.2
    tracemalloc.start()
    exif_json(BOMBS[name])
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_json_has_a_longest_length():
    """Escapes make six characters of one: what is too long then is null as well."""
    fits, long = (
        in_jpeg(one_ifd((UNKNOWN, ASCII, n), data=b"\1" * n)) for n in (MAX_JSON // 7, 50_000)
    )
    assert 6 * 50_000 > MAX_JSON > len(theirs(fits))
    assert MAX_READ_BYTES > 50_000
    assert exif_json(fits) == theirs(fits)
    assert exif_json(long) is None


def test_a_jpeg_that_poses_as_heic_has_no_tags():
    """exifread would go by the bytes of its first segment, and through boxes without an end."""
    assert exif_json(b"\xff\xd8\xff\xe0ftypheic" + bytes(100)) is None


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # PIL says it of each tag
def test_the_picture_around_a_bomb_is_stored():
    """Only its tags are lost."""
    for name in ("a text, in JPEG", "a text, in WebP", "IFDs, in JPEG"):
        found = Pictures(DownloadConfig(image_size=64)).resized(BOMBS[name])
        assert (found.error, found.exif, found.width) == (None, None, 64)
