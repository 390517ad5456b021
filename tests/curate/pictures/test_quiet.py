import os

import pytest
from PIL import Image

from curate.pictures.header import read_header
from curate.pictures.quiet import prepare_codecs
from curate.resize import Pictures
from schemas.configs import DownloadConfig
from tests.kinds import every_kind, png, saved, smooth


def test_damaged_files_are_not_talked_about(capfd: pytest.CaptureFixture[str]):
    """What libjpeg, libpng and OpenCV say of a damaged file reaches no terminal; fd 2 lives on."""
    body = bytearray(saved(Image.fromarray(smooth(1, 400, 300)), "JPEG"))
    body[2000:2010] = bytes(10)
    pictures = Pictures(DownloadConfig())
    pictures.resized(bytes(body))
    pictures.unchanged(every_kind()["png"][:-20])
    pictures.unchanged(every_kind()["png text"])
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_pil_opens_what_the_config_lets_in(monkeypatch: pytest.MonkeyPatch):
    """PIL refuses 179 million pixels by itself; a larger max_pixels is meant."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    prepare_codecs(300_000_000)
    assert read_header(png(16_000, 16_000, b""), 300_000_000).width == 16_000
    assert Image.MAX_IMAGE_PIXELS == 300_000_000
