"""The perceptual finder: every pair within the radius, once, and blank images never."""

from __future__ import annotations

import uuid
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.duplicates import perceptual
from curate.duplicates.perceptual import edges_in_view, find, pairs_within, plan
from schemas.configs import PerceptualDuplicates
from tests.tiny import Row, tiny_dataset


def clustered(count: int, flips: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Distinct hashes around few centres, so that many pairs lie near the radius."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, count // 8), dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for _ in range(flips):
        hashes ^= np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    return np.unique(hashes)


def brute_force(hashes: np.ndarray, radius: int) -> set[tuple[int, int, int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return {
        (i, j, int(near[i, j])) for i, j in zip(*np.where(near <= radius), strict=True) if i < j
    }


def in_views(hashes: np.ndarray, radius: int, t: int) -> list[tuple[int, int, int]]:
    """What all views with t error-free blocks report together."""
    ends = [64 * b // (radius + t) for b in range(radius + t + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in pairwise(ends)]
    uids = pa.chunked_array([pa.array([f"{i:08d}" for i in range(len(hashes))], pa.string())])
    found = []
    for view in combinations(range(radius + t), t):
        for row in edges_in_view(uids, hashes, radius, blocks, view).to_pylist():
            found.append((int(row["uid"]), int(row["other_uid"]), int(row["distance"])))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 16),
    st.integers(0, 3),
    st.integers(0, 400),
    st.integers(0, 10),
    st.integers(0, 99),
)
def test_all_pairs_within_the_radius_are_found_exactly_once(radius, t, count, flips, seed):
    """Any radius and any number of blocks give what comparing all gives, no repeats."""
    if radius > 8 and t > 2:
        t = 1
    hashes = np.random.default_rng(seed).permutation(clustered(count, flips, seed))
    found = in_views(hashes, radius, t)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(hashes, radius)


def test_pairs_within_compares_only_equal_keys():
    """Rows of different keys are no pairs, however near."""
    hashes, keys = np.array([0, 1, 3, 2], dtype=np.uint64), np.array([0, 0, 1, 1], dtype=np.uint64)
    left, right = pairs_within(hashes, keys, 2)
    assert {frozenset(p) for p in zip(left.tolist(), right.tolist(), strict=True)} == {
        frozenset((0, 1)),
        frozenset((2, 3)),
    }


@pytest.mark.parametrize("rows", [0, 10, 10_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("radius", [1, 2, 6, 16])
def test_the_plan_is_complete_for_any_pool(rows, radius):
    """The blocks are disjoint and cover 64 bits; there are as many as radius + t, and all choices
    of t.
    """
    blocks, views = plan(rows, radius)
    assert sum(blocks) == 2**64 - 1
    assert len(blocks) == radius + len(views[0])
    assert len(views) == len(set(views)) <= perceptual.MOST_VIEWS


def test_radius_0_needs_no_views():
    """Equal hashes are stars; nothing else is compared."""
    assert plan(1000, 0) == ([], [])


def edges(rows: list[Row], **knobs: Any) -> list[tuple[str, str, float]]:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    search = find(data, PerceptualDuplicates(**knobs))
    found = [row for bucket in range(search.buckets) for row in search.edges(bucket).to_pylist()]
    urls = {row.uid: row.url for row in rows}
    assert all(row["uid"] < row["other_uid"] for row in found)
    return [(*sorted((urls[e["uid"]], urls[e["other_uid"]])), e["distance"]) for e in found]


def test_hashes_without_information_form_no_edges():
    """Blank images (all zeros, all ones, a few stray bits) are no duplicates of each other."""
    blank = [0, 0, 2**64 - 1, 2**64 - 1, 1, 0x7F]
    rows = [Row(f"blank{i}", phash=h) for i, h in enumerate(blank)]
    assert edges([*rows, Row("x", phash=0xFF), Row("y", phash=0xFF)]) == [("x", "y", 0.0)]
    assert len(edges(rows, min_distinct_bits=0)) > 0


def test_a_flood_of_equal_hashes_is_a_star():
    """n equal hashes are n - 1 edges; a near one adds one edge, not n."""
    rows = [Row(f"u{i}", phash=0xFFFF) for i in range(50)] + [Row("near", phash=0xFFFE)]
    found = edges(rows)
    assert [d for *_, d in found].count(0.0) == 49
    assert [d for *_, d in found].count(1.0) == 1
    assert len(found) == 50


def test_slices_change_no_edge(monkeypatch: pytest.MonkeyPatch):
    """Cut into many buckets, the edges are the same."""
    hashes = clustered(300, 4, 7).tolist()
    rows = [Row(f"u{i}", phash=h) for i, h in enumerate([*hashes, *hashes[:20]])]
    at_once = sorted(edges(rows))
    monkeypatch.setattr("curate.duplicates.search.ROWS", 70)
    monkeypatch.setattr(perceptual, "NS_PER_VIEW", 0.0)
    assert sorted(edges(rows)) == at_once
    assert len(at_once) > 20
