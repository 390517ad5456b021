import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path

import cv2
import exifread
import numpy as np
import pytest
from PIL import Image

from curate.resize import Pictures
from models.decode import decode, over_white
from models.phash import fingerprint
from schemas.configs import DownloadConfig
from tests.kinds import bomb, every_kind, png, saved, smooth, turned

MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
OTHERWISE = {  # what img2dataset does wrong, or not at all
    *("png grey clear", "png grey 16", "png rgb 16", "png rgba 16", "tiff 16", "pgm 16"),
    *("tiff alpha", "png turned", "webp turned", "avif turned"),
    *(f"jpeg turned {n}" for n in range(2, 9)),
}


def pictures(**options) -> Pictures:
    return Pictures(DownloadConfig(**options))


@cache
def kinds() -> dict[str, bytes]:
    return every_kind()


def theirs(body: bytes, config: DownloadConfig):
    """What img2dataset's own Resizer makes of it."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from img2dataset.resizer import Resizer

    resizer = Resizer(
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        resize_only_if_bigger=config.resize_only_if_bigger,
        encode_quality=config.quality,
        encode_format=config.encode_format,
        min_image_size=config.min_image_size,
        max_image_area=config.max_image_area,
        max_aspect_ratio=config.max_aspect_ratio,
    )
    return resizer(io.BytesIO(body))


def ours(body: bytes, config: DownloadConfig):
    """The same fields in the same order."""
    p = Pictures(config).resized(body)
    sizes = (p.width, p.height, p.original_width, p.original_height)
    return (p.encoded or None, *sizes, p.error)


def photo(width: int, height: int) -> np.ndarray:
    """Smooth areas, edges and some noise."""
    noise = np.random.default_rng(5).normal(0, 4, (height, width, 3))
    image = smooth(11, width, height).astype(float) + noise
    image[height // 3 : height // 2, width // 4 : width // 2] = (200, 40, 90)
    return image.clip(0, 255).astype(np.uint8)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("name", sorted(set(every_kind()) - OTHERWISE))
def test_small_images_are_stored_as_img2dataset_stores_them(name: str):
    """Bytes and sizes are equal in every mode, both ways of resize_only_if_bigger and all formats.

    Sizes 48, 61 and 120 make an 80 x 60 image smaller, one side smaller, and larger.
    """
    for mode, only, size in product(MODES, (False, True), (48, 61, 120)):
        kind = ("jpg", "png", "webp")[(size + only) % 3]
        config = DownloadConfig(
            image_size=size,
            resize_mode=mode,
            resize_only_if_bigger=only,
            encode_format=kind,
            reencode="always",
        )
        assert ours(kinds()[name], config) == theirs(kinds()[name], config), (mode, only, size)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *product(("JPEG", "PNG", "WEBP"), ((1000, 750), (750, 1001), (513, 40), (2500, 37))),
        *product(("JPEG", "PNG"), ((2401, 1801),)),
    ],
)
def test_reduced_decoding_has_img2datasets_sizes_and_nearly_its_pixels(kind, size):
    """A large image has exactly img2dataset's sizes, and pixels as near as JPEG itself leaves."""
    body = saved(Image.fromarray(photo(*size)), kind)
    for mode in MODES[1:]:
        if mode in ("keep_ratio", "center_crop") and min(size) < 100:
            continue
        config = DownloadConfig(
            image_size=100, resize_mode=mode, encode_format="png", reencode="always"
        )
        mine, expected = ours(body, config), theirs(body, config)
        assert mine[1:] == expected[1:]
        assert psnr_db(decode(mine[0]), decode(expected[0])) > 40


def test_a_large_png_differs_by_rounding_only():
    """A drawing above 4 Mpx, brought to its width stripe by stripe, is at most one level off."""
    rgba = np.dstack([photo(2400, 1800), smooth(2, 2400, 1800, 1)])
    body, config = saved(Image.fromarray(rgba), "PNG"), DownloadConfig(encode_format="png")
    mine, expected = (decode(found(body, config)[0]) for found in (ours, theirs))
    assert np.abs(mine.astype(int) - expected).max() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(90, 60), (900, 601)])
def test_exif_orientation_is_applied(orientation, size):
    """An image stored in any of the eight ways comes out as PIL turns it, with upright sizes."""
    body = turned("JPEG", orientation, *size)
    found = pictures(image_size=64, resize_mode="keep_ratio", encode_format="png").resized(body)
    with Image.open(io.BytesIO(body)) as image:
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
    assert (found.original_width, found.original_height) == upright.size
    small = cv2.resize(np.asarray(upright), (found.width, found.height), interpolation=3)
    assert min(found.width, found.height) == 64
    assert psnr_db(decode(found.encoded), small) > 38


def test_cmyk_is_shown_as_it_was_meant():
    """A CMYK JPEG, whose values Adobe inverts, becomes the RGB that it was made from."""
    found = pictures(resize_mode="no", encode_format="png").resized(kinds()["jpeg cmyk"])
    assert psnr_db(decode(found.encoded), smooth(1)) > 25


@pytest.mark.parametrize("name", ["png grey 16", "png rgb 16", "tiff 16", "pgm 16"])
def test_sixteen_bits_become_eight(name):
    """The high byte of each value is stored; img2dataset's JPEGs of these are white."""
    found = pictures(resize_mode="no", encode_format="png").resized(kinds()[name])
    channels = 3 if "rgb" in name else 1
    expected = smooth(9 if channels == 3 else 4, channels=channels)
    stored = decode(found.encoded)
    assert (stored == (expected[..., ::-1] if channels == 3 else expected)).all()


@pytest.mark.parametrize("name", ["png grey alpha", "png grey clear", "png rgba", "tiff alpha"])
def test_alpha_is_laid_over_white(name):
    """Grey images with alpha, a clear grey value and TIFF's premultiplied alpha too."""
    found = pictures(resize_mode="no", encode_format="png").resized(kinds()[name])
    with Image.open(io.BytesIO(kinds()[name])) as image:
        expected = over_white(np.asarray(image.convert("RGBA")))
    assert np.abs(decode(found.encoded).astype(int) - expected).max() <= 1
    assert "alpha" in name or (expected == 255).all(axis=2).any() or "rgba" in name


@pytest.mark.parametrize("name", ["gif animated", "webp animated", "png animated"])
def test_the_first_frame_of_an_animation_is_stored(name):
    """Also where the format is the one that is stored."""
    found = pictures(resize_mode="no", encode_format="png").resized(kinds()[name])
    with Image.open(io.BytesIO(kinds()[name])) as image:
        first = np.asarray(image.convert("RGB"))
    assert psnr_db(decode(found.encoded), first) > 40
    assert b"acTL" not in found.encoded


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *product(("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"), ((80, 60), (700, 500))),
        ("PNG", (2400, 1800)),
    ],
)
def test_a_truncated_file_is_refused_where_opencv_refuses_it(kind, size):
    """Whether a byte, the end's marker or half of the file is missing."""
    whole = saved(Image.fromarray(photo(*size)), kind)
    resized = pictures(image_size=64, reencode="always").resized
    assert resized(whole).error is None
    for missing in (1, 4, 12, 30, len(whole) // 2, len(whole) - 30):
        cut = whole[:-missing]
        opencv = cv2.imdecode(np.frombuffer(cut, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (resized(cut).error is None) == (opencv is not None), missing


@pytest.mark.parametrize("body", [b"", b"x", b"<html></html>", b"<svg xmlns='x'/>", b"GIF89a"])
def test_what_is_no_image_cannot_be_decoded(body):
    """img2dataset's words for it."""
    assert pictures().resized(body).error == "Image decoding error"
    assert pictures().unchanged(body).error == "Image decoding error"


def test_types_are_told_by_content():
    """A GIF is refused where only JPEG and PNG are let in, whatever it is called."""
    some = pictures(image_types=("jpeg", "png"))
    assert some.resized(kinds()["gif"]).error == "image type gif is not allowed"
    assert some.resized(kinds()["jpeg2000"]).error == "image type jpeg2000 is not allowed"
    assert some.resized(kinds()["jpeg"]).error is None


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        ({"min_image_size": 61}, "image too small"),
        ({"max_image_area": 4799}, "image area too large"),
        ({"max_pixels": 4799}, "image area too large"),
        ({"max_aspect_ratio": 1.3}, "aspect ratio too large"),
        ({"min_image_size": 60, "max_image_area": 4800, "max_aspect_ratio": 1.34}, None),
    ],
)
def test_limits_are_img2datasets(limit, error):
    """Each limit refuses with its words, and lets in what just fits."""
    assert pictures(**limit).resized(kinds()["jpeg"]).error == error
    if "max_pixels" not in limit:
        assert theirs(kinds()["jpeg"], DownloadConfig(**limit))[5] == error


def test_limits_need_the_header_only():
    """A file that ends behind a header of 13 000 x 13 000 is refused for that size."""
    header = png(13_000, 13_000, b"")[:60]
    assert pictures().resized(header).error == "image area too large"
    assert pictures(max_pixels=170_000_000).resized(header).error == "Image decoding error"


def test_original_sizes_are_upright():
    """Those of a lying image that EXIF turns are swapped, also where it is stored as it lies."""
    found = pictures(reencode="never").resized(turned("JPEG", 6))
    assert (found.width, found.height) == (80, 60)
    assert (found.original_width, found.original_height) == (60, 80)


def test_a_thin_image_cannot_grow_beyond_the_pixel_cap():
    """keep_ratio would make 256 x 2.5 million pixels of a line of 10 000."""
    line = saved(Image.new("RGB", (10_000, 1)), "PNG")
    thin = pictures(resize_mode="keep_ratio").resized(line)
    assert thin.error == "aspect ratio too large"


def test_what_the_encoder_cannot_hold_is_an_error():
    """WebP ends at 16 383 pixels a side."""
    line = saved(Image.new("RGB", (20_000, 2)), "PNG")
    found = pictures(resize_mode="no", encode_format="webp").resized(line)
    assert found.error == "Image encoding error"


def pixels_sha256(image: np.ndarray) -> str:
    """The definition: height and width in 8 bytes each, the lower first, then the RGB bytes."""
    height, width, _ = image.shape
    sides = height.to_bytes(8, "little") + width.to_bytes(8, "little")
    return sha256(sides + image.tobytes()).hexdigest()


def commented(jpeg: bytes) -> bytes:
    """The same scan with a comment segment behind the start."""
    assert jpeg.startswith(b"\xff\xd8")
    return jpeg[:2] + b"\xff\xfe\x00\x09a note!" + jpeg[2:]


@pytest.mark.parametrize("options", [{"image_size": 40}, {"reencode": "never"}])
def test_two_encodings_of_equal_pixels_have_one_pixel_sha256(options):
    """PNGs of any compression level, a JPEG with one more segment: other bytes, equal pixels;
    turned, shaped or drawn otherwise they differ.
    """
    shown = smooth(1, 64, 48)
    levels = [saved(Image.fromarray(shown), "PNG", compress_level=n) for n in (0, 9)]
    jpeg = saved(Image.fromarray(shown), "JPEG")
    asked = pictures(**options)
    for one, other in (levels, (jpeg, commented(jpeg))):
        first, second = asked.resized(one), asked.resized(other)
        assert first.sha256 != second.sha256
        assert first.error is None
        assert first.pixel_sha256 == second.pixel_sha256
    others = [shown[::-1], shown.swapaxes(0, 1), np.bitwise_xor(shown, 128)]
    found = {asked.resized(saved(Image.fromarray(o), "PNG")).pixel_sha256 for o in others}
    assert len(found | {asked.resized(levels[0]).pixel_sha256}) == 4


def test_what_is_known_is_of_the_image_that_was_encoded():
    """The fingerprint and the pixels' sha256 are those of a lossless file as models.decode reads
    it; a lossy encoder does not change them.
    """
    for name, body in kinds().items():
        found = {
            kind: pictures(image_size=64, encode_format=kind).resized(body)
            for kind in ("png", "jpg", "webp")
        }
        stored = over_white(decode(found["png"].encoded))
        assert stored.shape == (found["png"].height, found["png"].width, 3)
        for kind, one in found.items():
            assert one.error is None, name
            assert (one.phash, one.dhash, one.thumbnail) == fingerprint(stored)
            assert one.pixel_sha256 == pixels_sha256(stored)
            assert one.sha256 == sha256(body).hexdigest()
            assert one.suffix == kind


def test_exif_is_img2datasets_json():
    """The tags that exifread finds, as a JSON object; {} where there are none."""
    body = turned("JPEG", 3)
    tags = exifread.process_file(io.BytesIO(body), details=False)
    expected = json.dumps({k: str(v).strip() for k, v in tags.items()})
    assert pictures().resized(body).exif == expected
    assert "Rotated 180" in expected
    assert pictures().resized(kinds()["jpeg"]).exif == "{}"


STAYS = {"jpg": ("jpeg", "jpeg grey"), "png": ("png", "png grey"), "webp": ("webp",)}


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_if_needed_keeps_the_bytes_of_what_fits(kind):
    """Upright, opaque, 8-bit, single images of the right format and size stay; no other does."""
    asked = pictures(resize_mode="no", encode_format=kind)
    kept = {name for name, body in kinds().items() if asked.resized(body).encoded == body}
    also = {
        "jpg": {"jpeg progressive", "jpeg 444", "jpeg turned 1"},
        "png": {"png interlaced", "png text"},
        "webp": set(),
    }
    assert kept == {*STAYS[kind], *also[kind]}
    for options in ({"image_size": 70}, {"image_size": 80}, {"reencode": "always"}):
        other = pictures(**{"encode_format": kind, **options})
        assert other.resized(kinds()[STAYS[kind][0]]).encoded != kinds()[STAYS[kind][0]]


def test_if_needed_knows_the_layout():
    """A square of the wanted size stays in every mode; smaller ones where nothing is enlarged."""
    square = saved(Image.fromarray(smooth(1, 64, 64)), "JPEG")
    for mode in MODES:
        assert pictures(image_size=64, resize_mode=mode).resized(square).encoded == square
        small = pictures(image_size=100, resize_mode=mode, resize_only_if_bigger=True)
        assert small.resized(square).encoded == square
        larger = pictures(image_size=100, resize_mode=mode).resized(square).encoded
        assert (larger == square) == (mode == "no")


def test_never_keeps_what_can_be_stored():
    """JPEG, PNG and WebP stay as they are at any size; other formats are refused by name."""
    never = pictures(reencode="never", image_size=10)
    for name, body in kinds().items():
        found = never.resized(body)
        kind = name.split()[0]
        if kind in ("jpeg", "png", "webp"):
            assert (found.error, found.encoded) == (None, body), name
            assert found.suffix == {"jpeg": "jpg"}.get(kind, kind)
        else:
            assert found.error.endswith(" is not jpg, png or webp"), name
        assert found == never.unchanged(body)
    assert never.resized(kinds()["gif"]).error == "GIF is not jpg, png or webp"


def test_threads_at_once_give_the_same_bytes():
    """Four threads with one object store what one thread stores."""
    asked = pictures(image_size=64)
    bodies = [*kinds().values()] * 3
    large = saved(Image.fromarray(photo(3400, 2500)), "WEBP")  # waits for its turn
    bodies += [large] * 3
    alone = [asked.resized(body) for body in bodies]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(asked.resized, bodies)) == alone


MEASURED = """
import sys
from pathlib import Path
from curate.resize import Pictures
from schemas.configs import DownloadConfig
def highest_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10
asked = Pictures(DownloadConfig(max_pixels=170_000_000))
asked.resized(Path(sys.argv[1]).read_bytes())
before = highest_mb()
found = asked.resized(Path(sys.argv[2]).read_bytes())
print(found.error, found.original_width, found.width, found.thumbnail[:3].hex())
print(highest_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_bomb_within_the_pixel_cap_takes_little_memory(tmp_path: Path):
    """A PNG of 13 000 x 13 000 RGBA, 676 MB decoded, is resized in less than 64 MB more."""
    body = bomb(13_000)
    assert len(body) < 1_000_000
    (tmp_path / "bomb").write_bytes(body)
    (tmp_path / "small").write_bytes(kinds()["png rgba"])
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "small"), str(tmp_path / "bomb")]
    root = Path(__file__).parents[2]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    outcome, grown = told.splitlines()
    assert outcome == "None 13000 256 7fbfff"
    assert int(grown) < 64
