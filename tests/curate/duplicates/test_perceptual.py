"""The perceptual finder: every near pair, floods that cost their length, blank images never."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.duplicates import copies, hamming, leaders
from schemas.configs import PerceptualDuplicates
from tests.copies import (
    are_near,
    by_hand,
    colour,
    found_by_batches,
    found_in,
    promised,
    stars_of,
)
from tests.tiny import Row, by_url

BASE, OTHER = 0xF0F0_A5A5_3C3C_9696, 0x0123_4567_89AB_CDEF


def flipped(base: int, bits: Sequence[int] | None) -> int | None:
    return None if bits is None else base ^ sum(1 << b for b in set(bits))


BITS = st.none() | st.lists(st.integers(0, 14), max_size=6)
LEVELS = st.none() | st.tuples(*[st.integers(0, 14)] * 3)
LOOKS = st.tuples(BITS, BITS, LEVELS)
CONFIGS = st.builds(
    PerceptualDuplicates,
    by=st.sampled_from(["phash", "dhash"]),
    radius=st.integers(0, 9),
    max_rms=st.none() | st.sampled_from([0.0, 1.0, 3.0, 8.0]),
    check_radius=st.none() | st.integers(0, 9),
)


def rows_of(drawn: Sequence[tuple], name: str = "u") -> list[Row]:
    return [
        Row(
            f"{name}{i}",
            phash=flipped(BASE, bits),
            dhash=flipped(OTHER, checked),
            thumbnail=None if levels is None else colour(*levels),
        )
        for i, (bits, checked, levels) in enumerate(drawn)
    ]


def cut_small(patch: pytest.MonkeyPatch) -> None:
    """Many buckets, blocks and batches, as a large pool has them."""
    patch.setattr("curate.duplicates.search.ROWS", 15)
    patch.setattr(copies, "HASHES", 15)
    patch.setattr(copies, "HELD", 3)
    patch.setattr(copies, "BUCKET_S", 0.0)
    patch.setattr(hamming, "MOST_VIEWS", 5)
    patch.setattr(hamming, "NS_PER_VIEW", 1.0)
    patch.setattr(hamming, "NS_PER_SORTED", 0.0)
    patch.setattr(hamming, "PROBED", 2)
    patch.setattr(leaders, "COMPARED", 2)
    patch.setattr(leaders, "PAIRS", 2)
    patch.setattr(leaders, "MATRIX", 4)
    patch.setattr(leaders, "BLOCK", 8)


quiet = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quiet
@given(st.lists(LOOKS, max_size=20), CONFIGS, st.booleans())
def test_the_edges_promise_all_near_pairs_and_no_other(drawn, config, cut):
    """For any pool and knobs, in any number of buckets: what comparing all rows gives."""
    rows = rows_of(drawn)
    with pytest.MonkeyPatch.context() as patch:
        if cut:
            cut_small(patch)
        found = found_in(rows, config)
    assert promised(found) == by_hand(rows, config)
    hashes = {row.uid: getattr(row, config.by) for row in rows}
    assert all(e.distance == (hashes[e.uid] ^ hashes[e.other_uid]).bit_count() for e in found)


@quiet
@given(st.lists(st.tuples(LOOKS, st.integers(0, 2)), max_size=20), CONFIGS, st.booleans())
def test_searches_over_what_is_fresh_find_what_one_search_finds(drawn, config, cut):
    """Three batches, each searched as it comes: the same pairs as all at once."""
    rows = rows_of([looks for looks, _ in drawn])
    batches = [[r for r, (_, b) in zip(rows, drawn, strict=True) if b == k] for k in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        if cut:
            cut_small(patch)
        found = found_by_batches(batches, config)
    assert promised(found) == by_hand(rows, config)


@quiet
@given(
    st.lists(st.tuples(LOOKS, st.integers(0, 2)), min_size=12, max_size=30),
    st.builds(
        PerceptualDuplicates,
        radius=st.integers(0, 3),
        max_rms=st.sampled_from([None, 8.0, 20.0]),
        check_radius=st.sampled_from([None, 4, 9]),
    ),
    st.booleans(),
)
def test_whoever_is_kept_of_a_flood_is_near_whoever_goes(drawn, config, cut):
    """With small floods, in batches: all pairs that edges promise are near, and those of rows in no
    wide star are all there.
    """
    rows = rows_of([(bits and bits[:1], checked, levels) for (bits, checked, levels), _ in drawn])
    batches = [[r for r, (_, b) in zip(rows, drawn, strict=True) if b == k] for k in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaders, "FLOOD", 2)
        if cut:
            cut_small(patch)
        found = found_by_batches(batches, config)
    near, says = by_hand(rows, config), promised(found)
    assert says <= near
    row = {r.uid: r for r in rows}
    identical = config.model_copy(update={"max_rms": 0.0, "check_radius": 0, "radius": 0})
    wide = [s for k, s in stars_of(found).items() if not _alike(row, k, s, config, identical)]
    inside = set().union(*wide)
    assert {p for p in near if not p & inside} <= says


def _alike(row, leader, star, config, identical) -> bool:
    """Whether what is compared is the same for a whole star."""
    knobs = {k: 0 for k in ("max_rms", "check_radius") if getattr(config, k) is not None}
    same = identical.model_copy(update={"max_rms": None, "check_radius": None} | knobs)
    return all(are_near(row[leader], row[uid], same) for uid in star)


def noisy(count: int, level: int, seed: int, base: int = BASE) -> list[Row]:
    """Copies of one image: a hash, a grey thumbnail with noise of 1 in 3 levels each way."""
    noise = np.random.default_rng(seed).integers(-1, 2, (count, 192))
    return [
        Row(f"{seed}/{i}", phash=base, dhash=base, thumbnail=(level + n).astype(np.uint8).tobytes())
        for i, n in enumerate(noise)
    ]


@pytest.mark.parametrize("searches", [1, 3])
@pytest.mark.parametrize("check_radius", [None, 4])
def test_a_flood_of_near_copies_costs_its_own_length(check_radius, searches):
    """450 copies with noise, a second flood near it, 30 others: about an edge each, all true."""
    config = PerceptualDuplicates(check_radius=check_radius)
    floods = [noisy(450, 100, seed=1), noisy(330, 103, seed=2, base=BASE ^ 1)]
    others = noisy(30, 200, seed=3)
    rows = [*floods[0], *floods[1], *others]
    found = found_by_batches([rows[k::searches] for k in range(searches)], config)
    near, says = by_thumbnail(rows, 9.0), promised(found)
    assert says <= near
    assert sum(e.member for e in found) == 778
    assert len(found) < 780 + 30 * 29 // 2 + 10
    uids = [{row.uid for row in flood} for flood in floods]
    assert sorted(map(len, stars_of(found).values())) == [330, 450]
    assert all(frozenset((a, b)) in says for a in uids[0] for b in uids[1])
    assert by_thumbnail(others, 9.0) <= says


def by_thumbnail(rows: Sequence[Row], max_rms: float) -> set[frozenset[str]]:
    """All pairs with near thumbnails."""
    levels = np.array([np.frombuffer(row.thumbnail or b"", np.uint8) for row in rows], np.float64)
    own = (levels**2).sum(axis=1)
    near = own[:, None] + own[None, :] - 2 * levels @ levels.T <= 192 * max_rms**2
    uids = [row.uid for row in rows]
    return {frozenset((uids[i], uids[j])) for i, j in np.argwhere(np.triu(near, 1)).tolist()}


def test_fewer_than_a_flood_are_compared_pair_by_pair():
    """100 copies are 4950 edges and lose none; 101 are a star."""
    few, many = (found_in(noisy(n, 100, seed=1), PerceptualDuplicates()) for n in (100, 101))
    assert (len(few), len(many)) == (4950, 100)
    assert not any(e.member for e in few)
    assert all(e.member for e in many)


def test_many_different_looks_of_one_hash_take_no_more_than_their_pairs():
    """2000 colours of one hash: exactly the pairs that are near, by matrices."""
    levels = np.random.default_rng(0).integers(0, 256, (2000, 3))
    rows = [Row(f"u{i}", phash=BASE, thumbnail=colour(*c)) for i, c in enumerate(levels.tolist())]
    squares = ((levels[:, None, :] - levels[None, :, :]) ** 2).sum(axis=2)
    near = np.argwhere(np.triu(squares <= 3 * 9.0**2, 1))
    expected = {frozenset((rows[i].uid, rows[j].uid)) for i, j in near.tolist()}
    assert promised(found_in(rows, PerceptualDuplicates())) == expected
    assert len(expected) > 100


@quiet
@given(st.lists(LOOKS, min_size=1, max_size=15), CONFIGS, st.integers(0, 3))
def test_split_and_names_change_nothing(drawn, config, salt):
    """Any placement gives the same edges; renamed rows the same pairs."""
    rows = rows_of(drawn)
    found = found_in(rows, config, 1)
    assert sorted(found, key=str) == sorted(found_in(rows, config, by_url(4, salt)), key=str)
    renamed = rows_of(drawn, "other")
    new = {a.uid: b.uid for a, b in zip(rows, renamed, strict=True)}
    pairs = {frozenset(new[uid] for uid in pair) for pair in promised(found)}
    assert pairs == promised(found_in(renamed, config))


@pytest.mark.parametrize("radius", [1, 6, 8])
def test_no_near_pair_of_many_hashes_is_missed(radius):
    """3000 random hashes with 300 planted neighbours at every distance: what brute force finds."""
    rng = np.random.default_rng(radius)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64).tolist()
    for i in range(300):
        bits = rng.choice(64, i % (radius + 3), replace=False).tolist()
        hashes[1000 + i] = hashes[i] ^ sum(1 << b for b in bits)
    rows = [Row(f"u{i}", phash=h) for i, h in enumerate(hashes)]
    x = np.array(hashes, np.uint64)
    near = np.argwhere(np.triu(np.bitwise_count(x[:, None] ^ x[None, :]) <= radius, 1))
    expected = {frozenset((rows[i].uid, rows[j].uid)) for i, j in near.tolist()}
    config = PerceptualDuplicates(radius=radius)
    assert promised(found_in(rows, config)) == expected
    assert (
        promised(found_by_batches([rows[:1200], rows[1200:1250], rows[1250:]], config)) == expected
    )
    assert len(expected) >= 150


def test_the_thumbnail_tells_colours_apart():
    """Equal hashes of other colours are no copies; without max_rms they are."""
    rows = [Row("red", phash=BASE, thumbnail=colour(250, 0, 0))]
    rows += [Row("green", phash=BASE, thumbnail=colour(0, 250, 0))]
    rows += [Row("pale", phash=BASE ^ 1, thumbnail=colour(250, 10, 8))]
    urls = {row.uid: row.url for row in rows}
    found = found_in(rows, PerceptualDuplicates())
    assert [{urls[e.uid], urls[e.other_uid]} for e in found] == [{"red", "pale"}]
    assert len(promised(found_in(rows, PerceptualDuplicates(max_rms=None)))) == 3


def test_the_other_hash_may_decide_too():
    """Whichever of the two leads, the other one checks; a row without it joins nobody."""
    rows = [Row("a", phash=BASE, dhash=OTHER), Row("b", phash=BASE, dhash=OTHER ^ 0b111)]
    rows += [Row("none", phash=BASE)]
    two = frozenset((rows[0].uid, rows[1].uid))
    for check_radius, pairs in ((2, set()), (3, {two})):
        assert promised(found_in(rows, PerceptualDuplicates(check_radius=check_radius))) == pairs
    dhash = PerceptualDuplicates(by="dhash", radius=3, check_radius=0)
    assert promised(found_in(rows, dhash)) == {two}
    assert promised(found_in(rows, dhash.model_copy(update={"radius": 2}))) == set()


@pytest.mark.parametrize("thumbnail", [None, b"", bytes(191)])
def test_a_pair_without_a_whole_thumbnail_joins_nobody(thumbnail):
    """Nothing says that it looks the same."""
    rows = [Row(f"u{i}", phash=BASE, thumbnail=thumbnail) for i in range(3)]
    rows += [Row("near", phash=BASE ^ 1, thumbnail=thumbnail)]
    assert found_in(rows, PerceptualDuplicates()) == []
    assert len(found_in(rows, PerceptualDuplicates(max_rms=None))) == 3


def test_what_was_not_downloaded_is_in_no_edge():
    """Rows without an image have no copies."""
    rows = [Row(f"u{i}", status="failed_to_resize", phash=BASE) for i in range(3)]
    assert found_in([*rows, Row("one", phash=BASE)], PerceptualDuplicates(max_rms=None)) == []


def test_hashes_without_information_form_no_edges():
    """Blank images (all zeros, all ones, a few stray bits) are left out; the plainest flags, with 6
    bits, are not.
    """
    blank = [0, 0, 1 << 63, 1 << 63, 2**64 - 1, 2**64 - 1, 1, 0x7, 0x7]
    rows = [Row(f"blank{i}", phash=h) for i, h in enumerate(blank)]
    flags = [Row("x", phash=0x3F), Row("y", phash=0x3F)]
    found = promised(found_in([*rows, *flags], PerceptualDuplicates()))
    assert found == {frozenset(f.uid for f in flags)}
    assert len(found_in(rows, PerceptualDuplicates(min_distinct_bits=0))) > 0


def test_copies_of_one_look_are_a_star_however_many():
    """3000 equal rows are 2999 edges from the lowest uid, and one edge to what is near."""
    rows = [Row(f"u{i}", phash=BASE, thumbnail=colour(100)) for i in range(3000)]
    near = Row("near", phash=BASE ^ 1, thumbnail=colour(101))
    found = found_in([*rows, near], PerceptualDuplicates())
    leader = min(row.uid for row in rows)
    assert {e.uid for e in found if e.member} == {leader}
    assert [{e.uid, e.other_uid} for e in found if not e.member] == [{leader, near.uid}]
    assert len(found) == 3000
