"""score: a row for every downloaded pair, the same whatever it is computed with."""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from curate import shards
from curate.claims import Claim
from curate.dataset import Dataset
from curate.score import score
from models.base import Image
from models.scorers.preprocess import Preprocess
from schemas.configs import (
    ClipScorer,
    HeadScorer,
    ImageStatsScorer,
    ScorerConfig,
    TextStatsScorer,
    TmarsScorer,
)
from tests.gallery import shape
from tests.stored import (
    BROKEN,
    SMALL,
    Stored,
    add_pairs,
    discs,
    parts_of,
    stored,
    tiny_clip,
)
from tests.tiny import whole
from tests.written import noise, write

UNDECODABLE = Stored("http://a/broken.jpg", "a broken picture", BROKEN)
UNREAD = Stored("http://a/unread.jpg", None, shape(50))
BLANK = Stored("http://a/blank.jpg", " \n", shape(51))
GONE = Stored("http://a/gone.jpg", "not to be had", None)
PAIRS = [*discs(12), UNDECODABLE, UNREAD, BLANK, GONE]
DOT_AND_LINE = ((1, 1, 3), (1, 5000, 3))
STATS: tuple[ScorerConfig, ...] = (ImageStatsScorer(), TextStatsScorer())


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipScorer:
    return ClipScorer(model=str(tiny_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def scored(tmp_path_factory, clip) -> Dataset:
    """The pool with all four scorers, in one pass."""
    data = stored(tmp_path_factory.mktemp("scored"), PAIRS)
    score(data, [*STATS, clip, SMALL])
    return data


def close(one: Dataset, other: Dataset) -> None:
    """Equal rows of the stats; scores of the model within 1e-5 and its float16 vectors 1e-3."""
    for config in STATS:
        assert whole(one, f"scores_{config.name}") == whole(other, f"scores_{config.name}")
    for mine, theirs in zip(whole(one, "scores_clip"), whole(other, "scores_clip"), strict=True):
        assert (mine["uid"], mine["error"]) == (theirs["uid"], theirs["error"])
        assert mine["clip_score"] == pytest.approx(theirs["clip_score"], abs=1e-5)
        assert mine["image_emb"] == pytest.approx(theirs["image_emb"], abs=1e-3)


# ------------------------------------------------------------------------------ the rows


@pytest.mark.parametrize("name", ["image_stats", "text_stats", "clip", "bootstrap"])
def test_every_downloaded_pair_has_a_row(scored: Dataset, name: str):
    """One row per downloaded pair under its original caption's id, none for a failed download."""
    rows = whole(scored, f"scores_{name}")
    assert [row["uid"] for row in rows] == sorted(p.uid for p in PAIRS if p.image is not None)
    assert [row["caption_id"] for row in rows] == [row["uid"] for row in rows]


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("image_stats", {UNDECODABLE: "undecodable image"}),
        ("text_stats", {UNREAD: "no caption", BLANK: "no caption"}),
        *(
            (n, {UNDECODABLE: "undecodable image", UNREAD: "no caption", BLANK: "no caption"})
            for n in ("clip", "bootstrap")
        ),
    ],
)
def test_what_cannot_be_scored_is_nulls_with_an_error(scored: Dataset, name: str, errors):
    """A row of the pair alone says why; all others have every value and no error."""
    expected = {pair.uid: error for pair, error in errors.items()}
    rows = whole(scored, f"scores_{name}")
    assert {row["uid"]: row["error"] for row in rows if row["error"]} == expected
    for row in rows:
        nulls = {n for n, v in row.items() if v is None} - {"error", "language"}
        values = set(row) - {"uid", "caption_id", "error", "language"}
        if row["error"] == "no caption" and name == "clip":  # its image was looked at
            values.remove("image_emb")
        assert nulls == (values if row["error"] else set())


@pytest.mark.parametrize("name", ["clip", "bootstrap"])
def test_embeddings_are_float16_lists_of_one_length(scored: Dataset, name: str):
    """Fixed-size lists, null where there is an error, of length 1 where not; an image that clip has
    seen has its own though the caption is empty.
    """
    for part in scored.parts(f"scores_{name}"):
        rows = scored.read(f"scores_{name}", part)
        for column in ("image_emb", "text_emb"):
            assert rows.schema.field(column).type == pa.list_(pa.float16(), 16)
            errors = rows["error"].to_pylist()
            seen = ("no caption",) if (name, column) == ("clip", "image_emb") else ()
            expected = [error is not None and error not in seen for error in errors]
            assert rows[column].is_null().to_pylist() == expected
            found = [v for v in rows[column].to_pylist() if v is not None]
            assert [sum(x * x for x in v) for v in found] == pytest.approx(
                [1] * len(found), abs=2e-3
            )


def test_a_part_without_downloads_has_no_rows_but_all_columns(tmp_path: Path, clip: ClipScorer):
    """Readers of embeddings find their column, with nothing in it."""
    data = Dataset(str(tmp_path))
    add_pairs(data, {0: [GONE], 1: discs(2)})
    score(data, [*STATS, clip])
    for config in (*STATS, clip):
        empty, full = (data.read(f"scores_{config.name}", part) for part in (0, 1))
        assert (empty.num_rows, full.num_rows) == (0, 2)
        assert empty.schema.remove_metadata() == full.schema.remove_metadata()


# ------------------------------------------------------------------------------ one pass, or more


def test_together_or_alone_the_bytes_are_equal(scored: Dataset, tmp_path: Path, clip: ClipScorer):
    """Scorers that share the decoded pixels do not touch each other's results."""
    alone = stored(tmp_path, PAIRS)
    for config in (SMALL, clip, *STATS[::-1]):
        score(alone, [config])
    for config in (*STATS, clip, SMALL):
        table = f"scores_{config.name}"
        assert parts_of(alone, table) == parts_of(scored, table)


def test_a_scorer_added_later_computes_its_table_alone(tmp_path: Path):
    """The tables that are there keep their files, and their models are not even loaded."""
    model = tiny_clip(tmp_path / "model")
    clip = ClipScorer(model=str(model))
    data = stored(tmp_path / "set", PAIRS)
    score(data, [clip])
    before = {f: data.fs.modified(f) for f in data.files("scores_clip")}
    shutil.rmtree(model)
    score(data, [clip, ImageStatsScorer()])
    assert {f: data.fs.modified(f) for f in data.files("scores_clip")} == before
    assert data.rows("scores_image_stats") == data.rows("scores_clip") == 15
    version = data.at
    score(data, [clip, ImageStatsScorer()])
    assert data.at == version


def test_a_killed_pass_goes_on_at_the_part_that_is_missing(
    scored: Dataset, tmp_path: Path, monkeypatch
):
    """What was written stays, though no version named it; the rest comes with the same bytes."""
    data = stored(tmp_path, PAIRS)
    write, asked = Dataset.write, []

    def die_at_the_second(self: Dataset, claim: Claim, part: int, rows: pa.Table) -> None:
        asked.append(part)
        if len(asked) == 2:
            raise KeyboardInterrupt
        write(self, claim, part, rows)

    monkeypatch.setattr(Dataset, "write", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        score(data, [ImageStatsScorer()])
    again = Dataset(str(tmp_path))
    assert "scores_image_stats" not in again.tables()
    score(again, [ImageStatsScorer()])
    assert asked == [0, 1, 1]
    assert parts_of(again, "scores_image_stats") == parts_of(scored, "scores_image_stats")


# ------------------------------------------------------------------------------ invariance


@pytest.mark.parametrize("parts", [1, 3])
def test_neither_parts_nor_batches_change_a_value(
    scored: Dataset, tmp_path: Path, clip: ClipScorer, monkeypatch, parts: int
):
    """The same pairs in other parts and in batches of 4 get the same scores."""
    monkeypatch.setattr("curate.score.BATCH", 4)
    other = stored(tmp_path, PAIRS, parts)
    score(other, [*STATS, clip.model_copy(update={"batch_size": 3})])
    close(other, scored)


def test_the_order_within_a_part_changes_nothing(scored: Dataset, tmp_path: Path, clip: ClipScorer):
    """Rows of samples in any order: the scores come by uid, each pair with its own."""
    rows = list(PAIRS)
    random.Random(1).shuffle(rows)
    data = Dataset(str(tmp_path))
    add_pairs(data, {0: rows})
    score(data, [*STATS, clip])
    uids = data.read("scores_clip", 0)["uid"].to_pylist()
    assert uids == sorted(uids)
    close(data, scored)


def test_shuffled_images_change_the_clip_score(tmp_path: Path, clip: ClipScorer, scored: Dataset):
    """The same captions on other images: every score differs, by far more than rounding."""
    pairs = discs(12)
    turned = [
        Stored(p.url, p.caption, q.image) for p, q in zip(pairs, pairs[1:] + pairs[:1], strict=True)
    ]
    data = stored(tmp_path, turned)
    score(data, [clip])
    before = {row["uid"]: row["clip_score"] for row in whole(scored, "scores_clip")}
    moved = [abs(row["clip_score"] - before[row["uid"]]) for row in whole(data, "scores_clip")]
    assert len(moved) == 12
    assert min(moved) > 1e-5
    assert max(moved) > 1e-2


# ------------------------------------------------------------------------------ one decoding


def test_an_image_is_read_decoded_and_prepared_once_for_all_scorers(
    tmp_path: Path, clip: ClipScorer, monkeypatch
):
    """Three scorers of one recipe look at the same pixels; the model's size is made of them in the
    threads that decode, ahead of the model.
    """
    data = stored(tmp_path, PAIRS, parts=1)
    seen, prepared, threads = Counter(), Counter(), set()
    decode, prepare = shards.decode_or_error, Preprocess.__call__

    def decoded(encoded: bytes | None):
        seen[encoded] += 1
        return decode(encoded)

    def made(self: Preprocess, image: Image):
        prepared[image.tobytes()] += 1
        threads.add(threading.current_thread().name.split("_")[0])
        return prepare(self, image)

    monkeypatch.setattr(shards, "decode_or_error", decoded)
    monkeypatch.setattr(Preprocess, "__call__", made)
    score(data, [*STATS, clip])
    assert seen == Counter(pair.image for pair in PAIRS if pair.image is not None)
    assert set(prepared.values()) == {1}
    assert len(prepared) == 14
    assert threads == {"decode"}


def test_scorers_of_captions_alone_read_no_image(tmp_path: Path, scored: Dataset):
    """With the tars gone, text_stats says what it says beside scorers that look at pixels."""
    data = stored(tmp_path, PAIRS)
    for tar in tmp_path.rglob("*.tar"):
        tar.unlink()
    score(data, [TextStatsScorer()])
    assert parts_of(data, "scores_text_stats") == parts_of(scored, "scores_text_stats")
    with pytest.raises(FileNotFoundError):
        score(data, [ImageStatsScorer()])


def test_scorers_of_what_is_stored_follow_in_the_same_call(tmp_path: Path, clip: ClipScorer):
    """A head on the embeddings of `clip` needs no second call, and no images later."""
    weights = tmp_path / "head.safetensors"
    values = np.linspace(-1, 1, 16, dtype=np.float32)
    save_file({"0.weight": values[None], "0.bias": np.zeros(1, np.float32)}, weights)
    head = HeadScorer(name="taste", weights=str(weights))
    data = stored(tmp_path / "set", PAIRS)
    score(data, [head, clip])
    rows = zip(whole(data, "scores_taste"), whole(data, "scores_clip"), strict=True)
    for mine, clips in rows:
        assert (mine["uid"], mine["error"] is None) == (
            clips["uid"],
            clips["image_emb"] is not None,
        )
        if clips["error"] == "no caption":  # the image alone is scored
            assert mine["value"] is not None
        if mine["error"] is None:
            assert mine["value"] == pytest.approx(np.dot(values, clips["image_emb"]), abs=1e-3)


# ------------------------------------------------------------------------------ hostile


def test_text_is_covered_in_the_same_pass(tmp_path: Path, clip: ClipScorer):
    """The threads that decode cover it: a written image has boxes and another score than clip's,
    one without text has clip's own, one that cannot be decoded an error."""
    jpeg = bytes(cv2.imencode(".jpg", write(noise(1), "winter coat", 30)[0])[1].tobytes())
    written = Stored("http://a/written.jpg", "a winter coat", jpeg)
    disc = Stored("http://a/disc.jpg", "a disc", shape(3, side=200))
    data = stored(tmp_path / "set", [written, disc, UNDECODABLE])
    score(data, [clip, TmarsScorer(model=clip.model, recognise=True)])
    rows = {row["uid"]: row for row in whole(data, "scores_tmars")}
    plain = {row["uid"]: row["clip_score"] for row in whole(data, "scores_clip")}
    assert rows[written.uid]["text_boxes"] == 1
    assert rows[written.uid]["text_overlap"] == pytest.approx(2 / 3)
    assert abs(rows[written.uid]["tmars"] - plain[written.uid]) > 1e-4
    assert rows[disc.uid]["tmars"] == pytest.approx(plain[disc.uid], abs=1e-6)
    assert rows[disc.uid]["text_area"] == rows[disc.uid]["text_overlap"] == 0
    assert rows[UNDECODABLE.uid]["error"] == "undecodable image"


def test_hostile_pairs_get_a_score_or_an_error(tmp_path: Path, clip: ClipScorer):
    """One pixel, 10 MB of caption, no caption, right-to-left, emoji, controls, no image: each has a
    row, and a null stands only beside an error.
    """
    dot, line = (bytes(cv2.imencode(".png", np.zeros(s, np.uint8))[1]) for s in DOT_AND_LINE)
    good = {
        "one pixel": Stored("http://a/1", "a dot", dot),
        "a line": Stored("http://a/2", "a line", line),
        "10 MB": Stored("http://a/3", "word " * 2_000_000, shape(1)),
        "one long word": Stored("http://a/4", "x" * 100_000, shape(2)),
        "right to left": Stored("http://a/5", "\u202eרכב אדום על הכביש\u202c", shape(3)),
        "emoji": Stored("http://a/6", "🙂🏽‍🚀 🇩🇪", shape(4)),
        "controls": Stored("http://a/7", "a\x00b\x1b[2J <start_of_text>", shape(5)),
    }
    bad = {
        "no caption": Stored("http://a/8", "", shape(6)),
        "blank": Stored("http://a/9", "\u3000\t\n", shape(7)),
        "undecodable": Stored("http://a/10", "broken", BROKEN),
        "no bytes": Stored("http://a/11", "empty", b""),
        "cut": Stored("http://a/12", "cut", shape(8)[:100]),
    }
    data = stored(tmp_path, [*good.values(), *bad.values()], parts=1)
    score(data, [*STATS, clip])
    rows = {row["uid"]: row for row in whole(data, "scores_clip")}
    assert len(rows) == len(good) + len(bad)
    for name, pair in good.items():
        assert rows[pair.uid]["error"] is None, name
        assert -1 <= rows[pair.uid]["clip_score"] <= 1, name
    for name, pair in bad.items():
        assert rows[pair.uid]["error"], name
        assert rows[pair.uid]["clip_score"] is rows[pair.uid]["text_emb"] is None, name
        assert (rows[pair.uid]["image_emb"] is None) == (name not in ("no caption", "blank")), name
    for config in STATS:
        for row in whole(data, f"scores_{config.name}"):
            known = {"error", "language", "jpeg_quality"}  # of some pairs there are none
            nulls = {n for n, v in row.items() if v is None} - known
            assert ("language_confidence" in nulls) <= (row.get("language") is None)
            assert (nulls - {"language_confidence"} == set()) == (row["error"] is None)


# ------------------------------------------------------------------------------ refused


def test_a_changed_config_is_refused_before_anything_is_fitted(tmp_path: Path):
    """The error names the field and the way out; no model is trained for it."""
    data = stored(tmp_path, PAIRS)
    score(data, [SMALL])
    fitted = sorted(p.name for p in (tmp_path / "_artifacts/bootstrap").iterdir())
    with pytest.raises(ValueError, match=r"scores_bootstrap.*steps: 3 -> 4.*curate drop"):
        score(data, [SMALL.model_copy(update={"steps": 4})])
    assert sorted(p.name for p in (tmp_path / "_artifacts/bootstrap").iterdir()) == fitted
    score(data, [SMALL.model_copy(update={"batch_size": 3})])


@pytest.mark.slow
def test_ray_workers_write_the_same(scored: Dataset, tmp_path: Path, clip: ClipScorer):
    """Two actors train the same weights and write the same parts, bytes and all, but for the last
    bits of a model's scores: those depend on how many threads a worker has.
    """
    data = stored(tmp_path, PAIRS)
    score(data, [*STATS, clip, SMALL], workers=2)
    close(data, scored)
    for config in STATS:
        table = f"scores_{config.name}"
        assert parts_of(data, table) == parts_of(scored, table)
    for mine in Path(data.path, "_artifacts").rglob("fold*"):
        theirs = Path(scored.path, mine.relative_to(data.path))
        assert mine.read_bytes() == theirs.read_bytes()
    mine, theirs = (whole(d, "scores_bootstrap") for d in (data, scored))
    assert [r["fold"] for r in mine] == [r["fold"] for r in theirs]
    assert [r["clip_score"] for r in mine] == pytest.approx(
        [r["clip_score"] for r in theirs], abs=1e-5
    )


def test_the_quality_of_originals_is_read_from_the_stored_files(tmp_path: Path):
    """Kept byte for byte: the encoder's quality; a PNG has none."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    files = [cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, q])[1] for q in (40, 90)]
    files.append(cv2.imencode(".png", pixels)[1])
    pairs = [Stored(f"http://a/{i}", str(i), file.tobytes()) for i, file in enumerate(files)]
    data = stored(tmp_path, pairs)
    score(data, [ImageStatsScorer(name="stats"), TextStatsScorer()])
    found = {row["uid"]: row["jpeg_quality"] for row in whole(data, "scores_stats")}
    assert [found[pair.uid] for pair in pairs] == [40, 90, None]
