"""The exact finder: stars of equal bytes or URLs."""

from __future__ import annotations

import uuid

import pytest

from curate.duplicates.exact import find
from schemas.configs import ExactDuplicates
from tests.tiny import Row, tiny_dataset

ROWS = [
    *(Row(f"http://a/{i}", sha256="a" * 64) for i in range(4)),
    *(Row(f"http://b/{i}", sha256="b" * 64) for i in range(2)),
    *(Row("http://c/", f"caption {i}") for i in range(3)),
    *(Row(f"http://d/{i}", status="failed_to_download") for i in range(3)),
]


def edges(by: str) -> list[tuple[str, str]]:
    search = find(tiny_dataset(f"memory://{uuid.uuid4().hex}", ROWS, 3), ExactDuplicates(by=by))
    found = [row for bucket in range(search.buckets) for row in search.edges(bucket).to_pylist()]
    assert {row["distance"] for row in found} == {0.0}
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
