"""The blank finder: each colour is a group, and no image with a drawing is in one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.duplicates import finder
from curate.duplicates.search import Scope
from curate.resize import Pictures
from schemas.configs import BlankDuplicates, DownloadConfig, PerceptualDuplicates
from tests.copies import by_hand, colour, found_by_batches, found_in, promised, stars_of
from tests.tiny import Row, tiny_dataset

COLOURS = {"white": (255,) * 3, "black": (0,) * 3, "grey": (128,) * 3, "red": (200, 30, 30)}


def flat(name: str, size: tuple[int, int], kind: str) -> Row:
    """A flat image as a download describes it."""
    stream = io.BytesIO()
    Image.new("RGB", size, COLOURS[name]).save(stream, kind)
    picture = Pictures(DownloadConfig(image_size=64)).resized(stream.getvalue())
    return Row(f"{name}{size}{kind}", phash=picture.phash, thumbnail=picture.thumbnail)


def test_each_colour_is_a_group_of_its_own_at_any_size():
    """Flat PNGs and JPEGs of four colours and many sizes: four groups, whole."""
    sizes = [(1, 1), (300, 200), (64, 64), (20, 90)]
    rows = {
        name: [flat(name, size, kind) for size in sizes for kind in ("PNG", "JPEG")]
        for name in COLOURS
    }
    every = [row for group in rows.values() for row in group]
    found = found_in(every, BlankDuplicates())
    groups = [{row.uid for row in group} for group in rows.values()]
    assert promised(found) == by_hand(every, BlankDuplicates())
    for pair in promised(found):
        assert any(pair <= group for group in groups)
    for group in groups:
        linked = {uid for pair in promised(found) if pair <= group for uid in pair}
        assert linked == group
    assert found_in(every, PerceptualDuplicates()) == []


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 0, 1, 1 << 63, 0b111, 0b1111, 2**64 - 1]),
            st.none() | st.tuples(*[st.integers(0, 9)] * 3),
            st.integers(0, 1),
        ),
        max_size=20,
    ),
    st.sampled_from([0.0, 1.0, 4.0]),
    st.integers(0, 5),
)
def test_the_edges_promise_all_pairs_of_one_hash_and_near_thumbnails(drawn, max_rms, bits):
    """At once or in two searches: what comparing all rows gives; informative hashes are out."""
    rows = [
        Row(f"u{i}", phash=h, thumbnail=None if levels is None else colour(*levels))
        for i, (h, levels, _) in enumerate(drawn)
    ]
    config = BlankDuplicates(max_rms=max_rms, min_distinct_bits=bits)
    batches = [[r for r, (*_, b) in zip(rows, drawn, strict=True) if b == k] for k in range(2)]
    assert promised(found_in(rows, config)) == by_hand(rows, config)
    assert promised(found_by_batches(batches, config)) == by_hand(rows, config)


def test_many_blank_images_cost_their_own_length():
    """1000 white images with noise in their thumbnails and 500 black ones: a star each."""
    noise = np.random.default_rng(0).integers(254, 256, (1000, 192), dtype=np.uint8)
    rows = [Row(f"w{i}", phash=1 << 63, thumbnail=n.tobytes()) for i, n in enumerate(noise)]
    rows += [Row(f"b{i}", phash=0, thumbnail=colour(0)) for i in range(500)]
    found = found_in(rows, BlankDuplicates())
    assert sorted(len(star) for star in stars_of(found).values()) == [500, 1000]
    assert len(found) == 1498


@pytest.mark.parametrize("thumbnail", [None, bytes(191)])
def test_without_a_thumbnail_nobody_is_a_copy(thumbnail):
    """A hash that says nothing needs the colour."""
    rows = [Row(f"u{i}", phash=0, thumbnail=thumbnail) for i in range(3)]
    assert found_in(rows, BlankDuplicates()) == []


def test_the_method_is_told():
    """Edges carry what was compared."""
    data = tiny_dataset("memory://blank", [Row("a", phash=0)])
    for config, method in (
        (BlankDuplicates(), "blank"),
        (PerceptualDuplicates(by="dhash"), "dhash"),
    ):
        assert finder(config).find(Scope(data), config).method == method
        assert finder(config).tables(config) == ("samples",)
