"""What is known of one pair, and why it is in or out."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.show import show
from schemas.tables import URLS
from tests.gallery import HOSTILE, Item, add_caption, add_dedup, add_rows, gallery, shape
from tests.tiny import add_table

LOW, WIDE = 0.21, 1000
GOOD = Item("https://x.example/good.jpg", "a red disc", shape(1), 0.4)
COPY = Item("https://x.example/copy.jpg", "a red disc", shape(1), 0.4)
BAD = Item("https://x.example/bad.jpg", "a dog", shape(2), LOW, width=WIDE)
UNSCORED = Item("https://x.example/unscored.jpg", "a cat", shape(3))
NAMED = Item("https://x.example/named.jpg", "IMG_0001.jpg", shape(4), 0.4)
DEAD = Item("https://x.example/dead.jpg", "gone", None, error="HTTP Error 404: Not Found")
PAIRS = [GOOD, COPY, BAD, UNSCORED, NAMED, DEAD]


@pytest.fixture
def data(tmp_path) -> Dataset:
    return gallery(tmp_path / "set", PAIRS)


def verdict(data: Dataset, item: Item) -> str:
    return show(data, item.uid).splitlines()[-1]


def test_a_rule_that_drops_is_named_with_the_value_it_saw(data):
    """The verdict names the first failing rule, its column and the value;
    all failing rules are listed.
    """
    text = show(data, BAD.uid)
    assert text.endswith("out: dropped by quality rule low_clip (scores_clip__clip_score = 0.21)")
    assert (
        "low_clip: scores_clip__clip_score = 0.21; drops scores_clip__clip_score below 0.28" in text
    )
    assert "wide: samples__original_width = 1000; drops samples__original_width above 900" in text
    assert "quality   drop: low_clip" in text


def test_a_missing_score_and_a_predicate_say_what_they_are(data):
    """Unknown is not the same as low, and a predicate is quoted."""
    assert (
        verdict(data, UNSCORED)
        == "out: quality rule low_clip could not be judged (scores_clip__clip_score is unknown)"
    )
    assert (
        verdict(data, NAMED)
        == "out: dropped by quality rule file_name (urls__caption ~ '^IMG_[0-9]+')"
    )


def test_a_failed_download_shows_its_error(data):
    """The status and the error message are the verdict."""
    assert verdict(data, DEAD) == "out: failed_to_download: HTTP Error 404: Not Found"


def test_facts_of_the_pair_are_listed(data):
    """URL, caption, status, size, attempts, scores; an embedding by its type and length."""
    lines = [" ".join(line.split()) for line in show(data, GOOD.uid).splitlines()]
    wanted = {
        f"uid {GOOD.uid}",
        f"url {GOOD.url}",
        'original "a red disc"',
        "status success",
        "attempts 1",
    }
    assert wanted | {"original_width 400", "clip_score 0.4", "image_emb float16[16]"} <= set(lines)
    assert lines[-1] == "in: kept by download and quality"


def test_generated_captions_come_with_their_origin_and_scores(data):
    """Original and generated captions stand side by side; a score says which caption it is of."""
    caption_id = add_caption(data, GOOD.uid, "a disc that is red")
    scores = pa.table(
        {"uid": [GOOD.uid], "caption_id": [caption_id], "clip_score": pa.array([0.5], pa.float32())}
    )
    add_table(data, "scores_clip@hf", {0: scores}, ())
    text = show(data, GOOD.uid)
    assert 'generated  "a disc that is red"' in text
    assert f"by blip, caption_id {caption_id}, seed 0" in text
    assert f"scores_clip of caption {caption_id}" in text


def test_a_copy_names_the_pair_that_stays_for_it(data):
    """Copies in one star share a centre and no edge: the pair that stays is found through it."""
    centre, member = sorted([GOOD.uid, COPY.uid])
    add_dedup(data, [(centre, member, 0.0)], {COPY.uid: GOOD.uid})
    assert verdict(data, COPY).endswith(f"; perceptual copy of {GOOD.uid} (distance 0)")
    assert f"{COPY.uid}  distance 0, dropped" in show(data, GOOD.uid)
    assert f"{GOOD.uid}  distance 0, stays" in show(data, COPY.uid)


def test_two_members_of_a_star_find_each_other_through_its_centre(tmp_path):
    """The one that stays need not be the centre."""
    three = sorted(
        (dataclasses.replace(GOOD, url=f"https://x.example/{i}") for i in range(3)),
        key=lambda i: i.uid,
    )
    data = gallery(tmp_path / "set", three)
    centre, stays, goes = (i.uid for i in three)
    add_dedup(data, [(centre, stays, 0.0), (centre, goes, 0.0)], {centre: stays, goes: stays})
    assert verdict(data, three[2]).endswith(f"; perceptual copy of {stays} (distance 0)")


def test_a_pair_that_quality_dropped_represents_nobody(data):
    """decisions_dedup keeps pairs that took no part; they are not shown as staying."""
    low, high = sorted([BAD.uid, GOOD.uid])
    add_dedup(data, [(low, high, 3.0)], {})
    assert f"{BAD.uid}  distance 3" in show(data, GOOD.uid)
    assert "stays" not in show(data, GOOD.uid)


def test_subsets_are_listed_with_rank_and_what_training_sees(data):
    """Rank, weight and the chosen caption of every subset that holds the pair."""
    add_dedup(data, [], {})
    add_rows(
        data,
        "decisions_select",
        [{"uid": GOOD.uid, "keep": True}, {"uid": COPY.uid, "keep": False, "reason": "not_top"}],
    )
    seen = [{"caption_id": GOOD.uid, "text": "a red disc", "weight": 1.0}]
    add_rows(
        data,
        "subset_top",
        [{"uid": GOOD.uid, "rank": 7, "weight": 0.5, "cluster": None, "captions": seen}],
    )
    lines = [" ".join(line.split()) for line in show(data, GOOD.uid).splitlines()]
    assert {"subset_top", "rank 7", "weight 0.5", 'trains with "a red disc", weight 1'} <= set(
        lines
    )
    assert lines[-1] == "in: kept by download, quality, dedup and select; in subset top"
    assert verdict(data, COPY) == "out: dropped by select: not_top"


def test_what_is_not_decided_yet_is_neither_in_nor_out(tmp_path):
    """A pair that waits says for which stage."""
    data = Dataset(str(tmp_path / "set"))
    row = {"uid": GOOD.uid, "url": GOOD.url, "caption": GOOD.caption}
    add_table(data, "urls", {0: pa.Table.from_pylist([row], URLS)}, ())
    assert verdict(data, GOOD) == "undecided: not downloaded yet"
    other = gallery(tmp_path / "other", [GOOD], ())
    add_rows(other, "decisions_quality", [])
    assert verdict(other, GOOD) == "undecided: quality not decided yet"


@pytest.mark.parametrize("caption", HOSTILE)
def test_nothing_from_the_web_steers_the_terminal(caption, tmp_path):
    """No control, bidirectional or invisible character of caption,
    URL or error is printed as such.
    """
    error = f"bad {caption}"
    item = Item(f"https://x.example/{caption}", caption, None, error=error)
    text = show(gallery(tmp_path / "set", [item], ()), item.uid)
    assert all(c.isprintable() for line in text.split("\n") for c in line)
    for character in {"\x1b", "\x00", "\x9b", "\u202e"} & set(caption):
        assert character.encode("unicode_escape").decode() in text


def test_the_beginning_of_a_uid_is_enough_where_it_is_unique(tmp_path):
    """Six characters or more name a pair; several that share them are listed, none is said,
    others are refused.
    """
    uids = [f"abcdef{i:026x}" for i in range(7)] + ["1234567" + "0" * 25]
    rows = [{"uid": u, "url": f"https://x.example/{u}"} for u in uids]
    data = Dataset(str(tmp_path / "set"))
    add_table(data, "urls", {0: pa.Table.from_pylist(rows, URLS)}, ())
    assert uids[-1] in show(data, "123456")
    assert uids[-1] in show(data, " 1234567 ".upper())
    with pytest.raises(
        ValueError,
        match=rf"'abcdef' begins 7 uids: {uids[0]}, .*{uids[4]} and 2 more; give more of it",
    ):
        show(data, "abcdef")
    with pytest.raises(ValueError, match="version 1, has no pair with the uid 'ffffff'"):
        show(data, "ffffff")
    for wrong in ("12345", "xyzxyz", "1" * 33, "%_%_%_", ""):
        with pytest.raises(
            ValueError, match="is no uid: give its 32 hex characters, or the first 6 or more"
        ):
            show(data, wrong)


def test_a_rule_that_is_not_known_any_more_still_shows_its_value(data):
    """Decisions outlive the recipe: the value stands alone."""
    for path in data.fs.glob(f"{data.path}/decisions_quality/_config.*.json"):
        data.fs.rm(path)
    assert verdict(data, BAD) == "out: dropped by quality rule low_clip (value = 0.21)"
