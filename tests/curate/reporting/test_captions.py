"""Captions: counts that are exact, a draw that depends on the uids alone."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.query import connect
from curate.reporting.captions import captions
from schemas.tables import draw
from tests.gallery import HOSTILE, add_caption, gallery, items
from tests.tiny import Row, add_table, tiny_dataset

NAN = float("nan")


def row(at: int, score: float | None, generated: list[tuple[str, float | None]]) -> Row:
    return Row(
        f"https://x.example/{at}",
        f"original {at}",
        scores={"clip": {"clip_score": score}},
        generated={"hf": generated},
    )


def test_generated_captions_are_compared_with_the_original(tmp_path):
    """Counted where both have a score; equal is not higher, and NaN is no score."""
    rows = [
        row(0, 0.25, [("better", 0.5), ("worse", 0.125)]),
        row(1, 0.25, [("equal", 0.25)]),
        row(2, None, [("alone", 0.5)]),
        row(3, 0.25, [("unscored", None), ("broken", NAN)]),
        row(4, 0.5, []),
    ]
    data = tiny_dataset(tmp_path / "set", rows)
    (found,) = captions(connect(data), data)
    assert (found.name, found.scorer) == ("hf", "clip")
    assert (found.pairs, found.captions, found.both, found.higher) == (4, 6, 3, 1)
    shown = {c.pair.caption: (c.pair.note, sorted(c.generated)) for c in found.drawn}
    assert shown == {
        "original 0": ("0.250", [("better", "0.500"), ("worse", "0.125")]),
        "original 1": ("0.250", [("equal", "0.250")]),
        "original 2": ("", [("alone", "0.500")]),
        "original 3": ("0.250", [("broken", ""), ("unscored", "")]),
    }


def test_twenty_pairs_are_drawn_by_hash(tmp_path):
    """The lowest draws of (seed, uid) among pairs with a caption; another seed, other pairs."""
    rows = [row(i, 0.5, [("said", 0.5)] if i % 3 else []) for i in range(60)]
    data = tiny_dataset(tmp_path / "set", rows, parts=3)
    con = connect(data)
    able = [r.uid for r in rows if r.generated["hf"]]
    for seed in (0, 1):
        (found,) = captions(con, data, seed=seed)
        wanted = sorted(able, key=lambda uid: draw(seed, uid))[:20]
        assert [c.pair.uid for c in found.drawn] == wanted


def test_many_captions_of_a_pair_are_cut_and_counted(tmp_path):
    """Eight are shown."""
    data = tiny_dataset(tmp_path / "set", [row(0, 0.5, [(f"said {i}", 0.5) for i in range(11)])])
    (found,) = captions(connect(data), data)
    assert (len(found.drawn[0].generated), found.drawn[0].more) == (8, 3)


def test_without_scores_nothing_is_compared(tmp_path):
    """The captions are shown all the same; copies' captions belong to no captioner."""
    data = gallery(tmp_path / "set", items(4), ())
    data.drop("scores_clip")
    assert captions(connect(data), data) == []
    uid = items(4)[0].uid
    add_caption(data, uid, HOSTILE[4])
    (found,) = captions(connect(data), data)
    assert (found.pairs, found.scorer, found.both) == (1, None, 0)
    assert found.drawn[0].generated[0][0].startswith("nul\\x00 escape\\x1b[2J")
    assert str(found.drawn[0].pair.thumbnail).startswith("data:image/jpeg")
    assert found.drawn[0].pair.note == ""


@pytest.mark.parametrize("scored", ["other", "clip"])
def test_the_scorer_is_one_that_has_scored_the_captions(tmp_path, scored):
    """Among several with a clip_score."""
    uid = items(4)[0].uid
    data = gallery(tmp_path / "set", items(4), ())
    add_table(data, "scores_other", {0: scores(uid, uid, 0.5)}, ())
    caption_id = add_caption(data, uid, "a disc")
    add_table(data, f"scores_{scored}@hf", {0: scores(uid, caption_id, 0.75)}, ())
    (found,) = captions(connect(data), data)
    assert (found.scorer, found.both, found.higher) == (scored, 1, 1)


def scores(uid: str, caption_id: str, score: float) -> pa.Table:
    values = {"uid": [uid], "caption_id": [caption_id]}
    return pa.table(values | {"clip_score": pa.array([score], pa.float32())})
