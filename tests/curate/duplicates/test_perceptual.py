"""The perceptual finder: stars, every near pair of leaders, and blank images never."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.duplicates import hamming, leaders
from curate.duplicates.leaders import Rows
from curate.duplicates.perceptual import find
from schemas.configs import PerceptualDuplicates
from tests.tiny import Row, tiny_dataset

BASE = 0xF0F0_A5A5_3C3C_9696
Edge = tuple[str, str, float]


def colour(*levels: int) -> bytes:
    """A thumbnail of 8 x 8 pixels of one colour: two of them differ by the rms of their levels."""
    return bytes((levels * 3)[:3] * 64)


def rms(a: bytes, b: bytes) -> float:
    return float(
        np.sqrt(np.mean((np.frombuffer(a, np.uint8) * 1.0 - np.frombuffer(b, np.uint8)) ** 2))
    )


def alike(a: Row, b: Row, max_rms: float) -> bool:
    """What two thumbnails have to be, one of them missing included."""
    known = a.thumbnail is not None and b.thumbnail is not None
    return known and rms(a.thumbnail or b"", b.thumbnail or b"") <= max_rms


def by_hand(rows: Sequence[Row], radius: int, max_rms: float | None) -> set[Edge]:
    """The rule word by word: walk by uid, join the first leader that is near, compare all
    leaders.
    """
    walked = sorted((r for r in rows if r.phash is not None), key=lambda r: r.uid)
    known: list[Row] = []
    edges: set[Edge] = set()
    for row in walked:
        near = [
            k for k in known if k.phash == row.phash and (max_rms is None or alike(k, row, max_rms))
        ]
        if near:
            edges.add((near[0].uid, row.uid, 0.0))
        else:
            known.append(row)
    for a, b in combinations(known, 2):
        distance = (a.phash ^ b.phash).bit_count()
        if 0 < distance <= radius and (max_rms is None or alike(a, b, max_rms)):
            edges.add((a.uid, b.uid, float(distance)))
    return edges


def found_in(rows: Sequence[Row], **knobs: Any) -> list[Edge]:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    search = find(data, PerceptualDuplicates(**knobs))
    found: list[Edge] = []
    for bucket in range(search.buckets):
        edges = [
            (e["uid"], e["other_uid"], e["distance"]) for e in search.edges(bucket).to_pylist()
        ]
        assert edges == sorted(edges)
        found += edges
    return found


PICTURES = st.lists(
    st.tuples(
        st.none() | st.lists(st.integers(0, 14), max_size=6),  # bits that are flipped
        st.none() | st.tuples(*[st.integers(0, 14)] * 3),  # colour
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    PICTURES,
    st.integers(0, 9),
    st.none() | st.sampled_from([0.0, 1.0, 3.0, 8.0]),
    st.booleans(),
)
def test_the_edges_are_the_rule_by_hand(drawn, radius, max_rms, cut):
    """For any pool, radius and max_rms: each edge once, in any number of buckets."""
    rows = [
        Row(
            f"u{i}",
            phash=None if bits is None else BASE ^ sum(1 << b for b in set(bits)),
            thumbnail=None if levels is None else colour(*levels),
        )
        for i, (bits, levels) in enumerate(drawn)
    ]
    with pytest.MonkeyPatch.context() as patch:
        if cut:
            patch.setattr("curate.duplicates.search.ROWS", 7)
            patch.setattr(hamming, "NS_PER_VIEW", 0.0)
            patch.setattr(leaders, "CHUNK", 2)
            patch.setattr(leaders, "PAIRS", 2)
        found = found_in(rows, radius=radius, max_rms=max_rms)
    assert len(found) == len(set(found))
    assert set(found) == by_hand(rows, radius, max_rms)


def test_the_thumbnail_tells_colours_apart():
    """Equal hashes of other colours are no copies; without max_rms they are."""
    rows = [Row("red", phash=BASE, thumbnail=colour(250, 0, 0))]
    rows += [Row("green", phash=BASE, thumbnail=colour(0, 250, 0))]
    rows += [Row("pale", phash=BASE ^ 1, thumbnail=colour(250, 10, 8))]
    urls = {row.uid: row.url for row in rows}
    assert [{urls[a], urls[b]} for a, b, _ in found_in(rows)] == [{"red", "pale"}]
    assert len(found_in(rows, max_rms=None)) == 2


@pytest.mark.parametrize("thumbnail", [None, b"", bytes(191)])
def test_a_pair_without_a_whole_thumbnail_joins_nobody(thumbnail):
    """Nothing says that it looks the same."""
    rows = [Row(f"u{i}", phash=BASE, thumbnail=thumbnail) for i in range(3)]
    rows += [Row("near", phash=BASE ^ 1, thumbnail=thumbnail)]
    assert found_in(rows) == []
    assert len(found_in(rows, max_rms=None)) == 3


def test_members_of_a_star_are_near_its_leader():
    """A chain of colours, each near the next: the walk by uid cuts it into stars."""
    uids = [f"{i:032x}" for i in range(6)]
    rows = Rows.of(
        pa.table(
            {
                "uid": pa.chunked_array([uids]),
                "key": pa.array([BASE] * 6, pa.uint64()),
                "thumbnail": pa.array([colour(6 * i) for i in range(6)], pa.binary()),
            }
        )
    )
    assert rows.leaders(8.0).tolist() == [0, 0, 2, 2, 4, 4]
    assert rows.leaders(12.0).tolist() == [0, 0, 0, 3, 3, 3]


def test_hashes_without_information_form_no_edges():
    """Blank images (all zeros, all ones, a few stray bits) are no duplicates of each other; the
    plainest flags, with 6 bits, are.
    """
    blank = [0, 0, 1 << 63, 1 << 63, 2**64 - 1, 2**64 - 1, 1, 0x7, 0x7]
    rows = [Row(f"blank{i}", phash=h) for i, h in enumerate(blank)]
    flags = [Row("x", phash=0x3F), Row("y", phash=0x3F)]
    assert found_in([*rows, *flags]) == [(*sorted(f.uid for f in flags), 0.0)]
    assert len(found_in(rows, min_distinct_bits=0)) > 0


@pytest.mark.parametrize("max_rms", [None, 8.0])
def test_a_flood_of_equal_hashes_is_a_star(max_rms):
    """n re-encodings are n - 1 edges from one leader; a near one adds one edge, not n."""
    levels = np.random.default_rng(0).integers(100, 105, (3000, 3)).tolist()
    rows = [Row(f"u{i}", phash=BASE, thumbnail=colour(*c)) for i, c in enumerate(levels)]
    near = Row("near", phash=BASE ^ 1, thumbnail=colour(101))
    found = found_in([*rows, near], max_rms=max_rms)
    leader = min(row.uid for row in rows)
    assert len(found) == 3000
    assert {a for a, _, distance in found if distance == 0} == {leader}
    assert [{a, b} for a, b, distance in found if distance == 1] == [{leader, near.uid}]
