"""counts: how many images share a caption, and how many captions an image, over the whole pool."""

from __future__ import annotations

import string
import uuid
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.fits import counts
from schemas.configs import TextStatsScorer
from tests.gallery import shape
from tests.stored import Stored, add_pairs, discs, stored
from tests.tiny import Row, tiny_dataset

CONFIG = TextStatsScorer()
# the same words with other case, other white space around them, and none at all
CAPTIONS = ["a dog", "A Dog", " a dog", "a dog\n", "\t\u2003A DOG\u00a0", "a  dog", "", "  ", None]
PAIR = st.tuples(st.sampled_from(CAPTIONS), st.sampled_from("xyz"), st.booleans())


def expected(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """The counts by uid, in plain Python."""
    pool = [(r, r.sha256, (r.caption or "").strip().lower()) for r in rows if r.status == "success"]
    return {
        row.uid: (
            len({image for _, image, other in pool if other == caption}),
            len({other for _, other_image, other in pool if other_image == image}),
        )
        for row, image, caption in pool
    }


def counted(data: Dataset) -> dict[str, tuple[int | None, int | None]]:
    """What `columns` gives, by uid."""
    key = counts.fit(data, CONFIG)
    found = {}
    for part in data.parts("samples"):
        columns = counts.columns(data, CONFIG, key, part)
        uids = data.read("samples", part)["uid"].to_pylist()
        assert list(columns) == [f"text_stats__{name}" for name in counts.NAMES]
        found |= dict(zip(uids, zip(*columns.values(), strict=True), strict=True))
    return found


@settings(max_examples=25, deadline=None)
@given(drawn=st.lists(PAIR, max_size=12), parts=st.integers(1, 3))
@example(drawn=[], parts=2)
@example(drawn=[(caption, "x", True) for caption in CAPTIONS], parts=2)
def test_counts_are_those_of_plain_python(drawn, parts):
    """Distinct images and captions over all parts, case and outer blanks aside; a pair that was not
    downloaded counts for nothing and has none.
    """
    rows = [
        Row(f"http://a/{i}", caption, "success" if ok else "failed_to_download", sha256=image)
        for i, (caption, image, ok) in enumerate(drawn)
    ]
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, parts)
    missing = dict.fromkeys((row.uid for row in rows), (None, None))
    assert counted(data) == missing | expected(rows)


def test_each_part_has_its_own_file(tmp_path: Path):
    """A worker reads the counts of its part alone; a part without downloads needs no file."""
    rows = [Row(f"http://a/{c}", f"caption {c}", sha256="x") for c in string.ascii_lowercase]
    gone = [Row("http://a/gone", "gone", "failed_to_download")]
    place = {row.uid: at % 3 for at, row in enumerate(rows)} | {gone[0].uid: 3}
    data = tiny_dataset(tmp_path, rows + gone, place.__getitem__)
    folder = Path(data.path, "_artifacts/text_stats", counts.fit(data, CONFIG))
    assert sorted(p.name for p in folder.iterdir()) == [
        *(f"{part:08d}.parquet" for part in range(3)),
        "_done",
    ]
    assert counted(data)[gone[0].uid] == (None, None)
    assert set(counted(data).values()) == {(1, 26), (None, None)}


def test_counts_are_made_once_per_state_of_the_pool(tmp_path: Path):
    """A second call counts nothing; more pairs are another state and another artifact."""
    data = stored(tmp_path, discs(5))
    key = counts.fit(data, CONFIG)
    done = Path(data.path, "_artifacts/text_stats", key, "_done").stat().st_mtime_ns
    assert counts.fit(Dataset(str(tmp_path)), CONFIG) == key
    assert Path(data.path, "_artifacts/text_stats", key, "_done").stat().st_mtime_ns == done
    add_pairs(data, {2: [Stored("http://b/1", "a disc, number 3", shape(77))]})
    assert counts.fit(data, CONFIG) != key
    assert sorted(counted(data).values()) == [(1, 1)] * 4 + [(2, 1)] * 2
