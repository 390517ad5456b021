"""The exact finder: stars of equal bytes, pixels or URLs."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from curate.duplicates.exact import find
from curate.duplicates.search import Scope
from curate.resize import Pictures
from schemas.configs import DownloadConfig, ExactDuplicates
from tests.tiny import Row, tiny_dataset

ROWS = [
    *(Row(f"http://a/{i}", sha256="a" * 64) for i in range(4)),
    *(Row(f"http://b/{i}", sha256="b" * 64) for i in range(2)),
    *(Row("http://c/", f"caption {i}") for i in range(3)),
    *(Row(f"http://d/{i}", status="failed_to_download") for i in range(3)),
]


def edges(by: str, rows: Sequence[Row] = ROWS) -> list[tuple[str, str]]:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    search = find(Scope(data), ExactDuplicates(by=by))
    found = [row for bucket in range(search.buckets) for row in search.edges(bucket).to_pylist()]
    assert {(row["distance"], row["member"]) for row in found} == {(0.0, True)}
    return sorted((row["uid"], row["other_uid"]) for row in found)


def stars(*groups: list[Row]) -> list[tuple[str, str]]:
    uids = [sorted(row.uid for row in group) for group in groups]
    return sorted((first, other) for first, *others in uids for other in others)


@pytest.mark.parametrize("rows_per_bucket", [4_000_000, 3])
@pytest.mark.parametrize(
    ("by", "groups"), [("sha256", [ROWS[:4], ROWS[4:6], ROWS[6:9]]), ("url", [ROWS[6:9]])]
)
def test_equal_values_are_stars_around_the_lowest_uid(by, groups, rows_per_bucket, monkeypatch):
    """Every group has one edge per copy, whatever the buckets; failed downloads are in none."""
    monkeypatch.setattr("curate.duplicates.search.ROWS", rows_per_bucket)
    assert edges(by) == stars(*groups)


def test_equal_pixels_are_copies_whatever_their_bytes():
    """PNGs of two compression levels, a JPEG with one more comment: other bytes, one star each."""
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    png = [_saved(shown, "PNG", compress_level=level) for level in (0, 9)]
    jpeg = _saved(shown, "JPEG")
    jpegs = [jpeg, jpeg[:2] + b"\xff\xfe\x00\x09a note!" + jpeg[2:]]
    pictures = Pictures(DownloadConfig(image_size=20))
    rows = [
        Row(f"u{i}", sha256=picture.sha256, pixel_sha256=picture.pixel_sha256)
        for i, picture in enumerate(pictures.resized(body) for body in [*png, *jpegs])
    ]
    assert len({row.sha256 for row in rows}) == 4
    assert edges("pixels", rows) == stars(rows[:2], rows[2:])


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
