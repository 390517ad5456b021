"""shards: images by byte range, decoded once, in batches."""

from __future__ import annotations

import threading
import uuid
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.shards import (
    AHEAD,
    UNKNOWN,
    Reader,
    ahead,
    batches,
    decode_or_error,
    ranges,
    read_bytes,
)
from models.decode import decode
from schemas.tables import SAMPLES
from tests.gallery import shape
from tests.stored import BROKEN, Stored, discs, stored
from tests.tiny import add_table

NULL = Stored("http://a/null.jpg", None, shape(30))
GONE = Stored("http://a/gone.jpg", "gone", None)
BAD = Stored("http://a/bad.jpg", "bad", BROKEN)
PAIRS = sorted([*discs(8), NULL, GONE, BAD], key=lambda pair: pair.uid)
THERE = [pair for pair in PAIRS if pair.image is not None]


@pytest.fixture(params=["local", "memory"])
def data(request, tmp_path: Path) -> Dataset:
    root = tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return stored(root, PAIRS, parts=1)


@pytest.fixture
def asked(data: Dataset, monkeypatch) -> list[tuple[str, int, int]]:
    """(tar, begin, end) of each range that is read, in order."""
    found: list[tuple[str, int, int]] = []
    cat_file = data.fs.cat_file

    def listen(path: str, start: int | None = None, end: int | None = None, **more: object):
        if start is not None:
            found.append((path.rsplit("/", 1)[-1], start, end))
        return cat_file(path, start=start, end=end, **more)

    monkeypatch.setattr(data.fs, "cat_file", listen)
    return found


# ------------------------------------------------------------------------------ bytes


def test_every_image_comes_back_as_it_was_stored(data: Dataset, asked):
    """In the order of the rows that were asked for, None where there is none, in one request."""
    samples = data.read("samples", 0)
    assert read_bytes(data, samples) == [pair.image for pair in PAIRS]
    assert len(asked) == 1
    backwards = samples.take(pa.array(range(len(PAIRS)))[::-1])
    assert read_bytes(data, backwards) == [pair.image for pair in PAIRS[::-1]]
    assert asked[1:] == asked[:1]


def test_neighbours_are_one_request_and_others_are_not(data: Dataset, asked, monkeypatch):
    """A gap of more than GAP bytes ends a range; nothing but the gaps between is read in vain."""
    samples = data.read("samples", 0)
    rows = [i for i, pair in enumerate(PAIRS) if pair.image is not None]
    first, second, last = rows[0], rows[1], rows[-1]
    places = {i: (samples["offset"][i].as_py(), samples["size"][i].as_py()) for i in rows}
    gap = places[second][0] - sum(places[first])
    chosen = samples.take(pa.array([last, first, second]))
    expected = [PAIRS[last].image, PAIRS[first].image, PAIRS[second].image]
    for most, runs in ((gap, 2), (gap - 1, 3)):
        asked.clear()
        monkeypatch.setattr("curate.shards.GAP", most)
        assert read_bytes(data, chosen) == expected
        assert len(asked) == runs
        assert asked[-1][1:] == (places[last][0], sum(places[last]))


def test_nothing_to_read_asks_for_nothing(data: Dataset, asked):
    """Rows without an image, and no rows at all, cost no request."""
    samples = data.read("samples", 0)
    gone = samples.take(pa.array([PAIRS.index(GONE)]))
    assert read_bytes(data, gone) == [None]
    assert read_bytes(data, samples.slice(0, 0)) == []
    assert asked == []


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.sampled_from(["b.tar", "a.tar"]), st.integers(0, 99))),
        max_size=12,
        unique=True,
    )
)
def test_ranges_are_in_the_order_of_the_tars(places):
    """Each row with an image is once under its tar, sorted by where it lies."""
    rows = [
        {"uid": str(i), "shard": p and p[0], "offset": p and p[1], "size": p and 7}
        for i, p in enumerate(places)
    ]
    found = ranges(pa.Table.from_pylist(rows, SAMPLES))
    assert list(found) == sorted({p[0] for p in places if p})
    for shard, entries in found.items():
        assert entries == sorted((p[1], 7, i) for i, p in enumerate(places) if p and p[0] == shard)


# ------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize(
    ("encoded", "error"),
    [
        (None, "no image"),
        (b"", "undecodable image"),
        (BROKEN, "undecodable image"),
        (shape(1), None),
    ],
    ids=["none", "empty", "broken", "good"],
)
def test_an_image_or_the_reason_why_not(encoded, error):
    """Exactly one of both, never an exception."""
    image, reason = decode_or_error(encoded)
    assert reason == error
    assert (image is None) == (error is not None)


def test_a_tar_that_was_cut_costs_the_images_that_it_lost(tmp_path: Path):
    """What lies before the cut is whole; the rest are pairs with an error."""
    data = stored(tmp_path, PAIRS, parts=1)
    samples = data.read("samples", 0).to_pylist()
    rows = sorted((r for r in samples if r["shard"]), key=lambda r: r["offset"])
    tar = Path(data.tar_path(rows[0]["shard"]))
    tar.write_bytes(tar.read_bytes()[: rows[5]["offset"]])
    (batch,) = batches(data, 0)
    lost = {r["uid"] for r in rows[5:]} | {BAD.uid}
    found = dict(zip(batch.uids, batch.image_errors, strict=True))
    assert {uid for uid, error in found.items() if error == "undecodable image"} == lost
    assert [i is None for i in batch.images] == [error is not None for error in found.values()]


# ------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("size", [1, 3, 5, 10, 256])
def test_batches_hold_every_downloaded_pair_once(data: Dataset, size: int):
    """In the order of `samples`, each `size` long but the last, all columns of one length."""
    found = list(batches(data, 0, size=size, columns={"number": list(range(len(PAIRS)))}))
    lengths = [len(batch) for batch in found]
    assert lengths[:-1] == [size] * (len(found) - 1)
    assert 0 < lengths[-1] <= size
    assert [uid for batch in found for uid in batch.uids] == [pair.uid for pair in THERE]
    for batch in found:
        assert batch.caption_ids == batch.uids
        rows = [PAIRS.index(next(p for p in PAIRS if p.uid == uid)) for uid in batch.uids]
        assert batch.columns["number"] == rows
        assert batch.captions == [PAIRS[row].caption for row in rows]
        assert batch.columns["samples__original_width"] == [128] * len(batch)
        for row, image, error in zip(rows, batch.images, batch.image_errors, strict=True):
            if PAIRS[row] is BAD:
                assert (image, error) == (None, "undecodable image")
            else:
                assert error is None
                assert np.array_equal(image, decode(PAIRS[row].image))


def test_only_rows_that_are_kept_are_read(data: Dataset, asked):
    """`keep` is by row of the part; what was not downloaded stays out all the same."""
    chosen = {PAIRS[0], PAIRS[4], GONE}
    (batch,) = batches(data, 0, keep=[pair in chosen for pair in PAIRS])
    assert batch.uids == [pair.uid for pair in PAIRS if pair in chosen and pair is not GONE]
    (one,) = batches(data, 0, keep=[pair is PAIRS[2] for pair in PAIRS])
    assert asked[-1][2] - asked[-1][1] == len(PAIRS[2].image)
    assert one.uids == [PAIRS[2].uid]


def test_of_no_pairs_there_is_one_empty_batch(data: Dataset):
    """Its reader still learns what columns there would be."""
    (batch,) = batches(data, 0, keep=[False] * len(PAIRS), columns={"more": [1] * len(PAIRS)})
    assert len(batch) == 0
    assert batch.columns["more"] == batch.columns["samples__sha256"] == []


def test_a_reader_may_stop_early(data: Dataset):
    """Leaving after the first batch ends the threads that read ahead."""
    before = set(threading.enumerate())
    some = batches(data, 0, size=2)
    assert next(some).uids == [pair.uid for pair in THERE[:2]]
    some.close()
    assert list(some) == []
    assert set(threading.enumerate()) <= before


def test_what_is_made_of_pixels_is_made_where_they_were_decoded(data: Dataset):
    """`prepare` gets each image once, in a thread that decodes, and its result is a column."""
    names = set()

    def top_left(image: np.ndarray) -> int:
        names.add(threading.current_thread().name.split("_")[0])
        return int(image[0, 0, 0])

    with Reader(data, 0, prepare={"corner": top_left}) as reader:
        (run,) = reader.runs(256)
        batch = reader.read(run)
    expected = [None if image is None else int(image[0, 0, 0]) for image in batch.images]
    assert batch.columns["corner"] == expected
    assert expected.count(None) == 1
    assert names == {"decode"}


def test_where_no_one_looks_at_pixels_no_byte_is_read(data: Dataset, asked):
    """All pairs come with their captions; images are absent and say so."""
    with Reader(data, 0, decode=False, prepare={"corner": len}) as reader:
        batch = reader.read(reader.runs(256)[0])
    assert asked == []
    assert batch.uids == [pair.uid for pair in THERE]
    assert batch.images == batch.columns["corner"] == [None] * len(THERE)
    assert batch.image_errors == ["not decoded"] * len(THERE)


# ------------------------------------------------------------------------------ memory


@given(
    sides=st.lists(st.one_of(st.none(), st.integers(1, 6000)), max_size=30),
    size=st.integers(1, 12),
    most=st.integers(1, 1 << 28),
)
@settings(deadline=None)
def test_runs_are_bounded_by_bytes_and_hold_each_row_once(sides, size: int, most: int):
    """At most `size` rows and `most` bytes of pixels, or a single image; in order; as few as that
    allows one after the other.
    """
    reader = object.__new__(Reader)
    reader.decode, reader.rows = True, list(range(0, 2 * len(sides), 2))
    reader.sizes = [4 * s * s if s else UNKNOWN for side in sides for s in (side, side)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.shards.RUN_BYTES", most)
        runs = reader.runs(size)
    assert [row for run in runs for row in run] == reader.rows
    for run, following in zip_longest(runs, runs[1:]):
        assert len(run) <= size
        assert len(run) <= 1 or reader.cost(run) <= most
        if following is not None:
            assert len(run) == size or reader.cost([*run, following[0]]) > most
    assert all(runs) or runs == [[]]


def test_stored_sizes_bound_what_is_decoded_at_once(tmp_path: Path, monkeypatch):
    """Images that samples says are large come in small batches, whatever size is asked for."""
    data = stored(tmp_path, discs(6), parts=1)
    samples = data.read("samples", 0)
    side = pa.array([4096] * 3 + [64] * 3, pa.int32())
    for name in ("width", "height"):
        at = samples.schema.get_field_index(name)
        samples = samples.set_column(at, samples.schema.field(at), side)
    add_table(data, "samples", {0: samples}, ("urls",))
    assert [len(batch) for batch in batches(data, 0)] == [2, 4]


@given(st.lists(st.integers(0, 40), max_size=25), st.integers(1, 60))
@settings(deadline=None)
def test_what_is_ahead_is_bounded_and_in_order(prices: list[int], most: int):
    """Results come in order; besides what was handed out, at most AHEAD items of `most` bytes, or
    one, have been begun.
    """
    begun: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.shards.AHEAD_BYTES", most)
        results = ahead(lambda at: begun.append(at) or at, range(len(prices)), prices.__getitem__)
        for at, result in enumerate(results):
            assert result == at
            waiting = [other for other in begun if other > at]
            assert len(waiting) <= min(AHEAD, len(prices))
            assert len(waiting) <= 1 or sum(prices[other] for other in waiting) <= most
    assert sorted(begun) == list(range(len(prices)))


def test_later_work_runs_while_earlier_results_are_used():
    """The second item is done before the first one's user asks for it."""
    done = [threading.Event() for _ in range(3)]

    def work(at: int) -> int:
        done[at].set()
        return at

    results = ahead(work, range(3), lambda _: 0)
    assert next(results) == 0
    assert done[1].wait(10)
    assert list(results) == [1, 2]


def test_an_error_ahead_comes_when_it_is_its_turn():
    """Results before it are handed out first; nothing comes after it."""
    results = ahead(lambda at: 6 // (2 - at), range(4), lambda _: 0)
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
