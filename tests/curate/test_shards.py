"""shards: images by byte range, decoded once, in batches."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.shards import batches, decode_or_error, ranges, read_bytes
from models.decode import decode
from schemas.tables import SAMPLES
from tests.gallery import shape
from tests.stored import BROKEN, Stored, discs, stored

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
    some = batches(data, 0, size=2)
    assert next(some).uids == [pair.uid for pair in THERE[:2]]
    some.close()
    assert list(some) == []
