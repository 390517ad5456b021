"""recaption: who gets new captions, what they are called, and where they are seen."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from curate.claims import digest
from curate.compress import compress
from curate.dataset import Dataset
from curate.export import export
from curate.filter import filter_pairs
from curate.query import query
from curate.recaption import recaption
from curate.score import score, score_captions
from models.captioners.hf import Hf
from schemas.configs import (
    AllSelector,
    ChooseCaption,
    ClipScorer,
    ExportConfig,
    HfCaptioner,
    ImageStatsScorer,
    Rule,
)
from schemas.tables import caption_id_of
from tests.blip import WORDS, tiny_blip
from tests.gallery import shape
from tests.stored import BROKEN, SMALL, Stored, discs, parts_of, stored, tiny_clip
from tests.tiny import whole

RULES = (
    Rule(name="file_name", drop_if="urls__caption LIKE 'IMG_%'"),
    Rule(name="in_brackets", drop_if="urls__caption LIKE '%]'"),
    Rule(name="crowded", value="scores_image_stats__width", drop_above=1000, fault="image"),
    Rule(name="blurred", drop_if="urls__url LIKE '%blurred%'", fault="image"),
)
SURVIVORS = discs(8)
MISNAMED = [Stored("http://a/x.jpg", "IMG_2031]", shape(20))]
BLURRED = [
    Stored("http://a/blurred/1.jpg", "a disc", shape(21)),
    Stored("http://a/blurred/2.jpg", "IMG_1", shape(22)),
]
UNKNOWN = [Stored("http://a/broken.jpg", "a broken picture", BROKEN)]
GONE = [Stored("http://a/gone.jpg", "gone", None)]
PAIRS = [*SURVIVORS, *MISNAMED, *BLURRED, *UNKNOWN, *GONE]
ORIGINAL = {pair.uid: pair.caption for pair in PAIRS}


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> HfCaptioner:
    model = tiny_blip(tmp_path_factory.mktemp("blip"))
    return HfCaptioner(model=str(model), num_captions=2, max_new_tokens=5, top_p=1.0, batch_size=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipScorer:
    return ClipScorer(model=str(tiny_clip(tmp_path_factory.mktemp("clip"))))


def judged(root: Path) -> Dataset:
    """The pool with its rules' decisions."""
    data = stored(root, PAIRS)
    score(data, [ImageStatsScorer()])
    filter_pairs(data, RULES)
    return data


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, blip, clip) -> Dataset:
    """The pool with two captions for each image that is worth it, and scores of all captions."""
    data = judged(tmp_path_factory.mktemp("captioned"))
    score(data, [clip, SMALL])
    recaption(data, [blip], RULES)
    score_captions(data, [ImageStatsScorer(), clip, SMALL], [blip])
    return data


# ------------------------------------------------------------------------------ who and what


def test_survivors_and_misnamed_pairs_are_captioned(captioned: Dataset):
    """Who passed, or failed rules of the pair alone; never who failed a rule of the image, be it
    because the image could not be scored.
    """
    reasons = query(captioned, "SELECT uid, rule FROM rules_failed").to_pylist()
    assert {r["rule"] for r in reasons if r["uid"] == UNKNOWN[0].uid} == {"unknown crowded"}
    assert {r["rule"] for r in reasons if r["uid"] == BLURRED[1].uid} == {"file_name", "blurred"}
    rows = whole(captioned, "captions_hf")
    assert [r["uid"] for r in rows] == sorted(2 * [p.uid for p in SURVIVORS + MISNAMED])


def test_captions_say_where_they_come_from(captioned: Dataset, blip: HfCaptioner):
    """caption_id is the hash of what made it; nothing of the original caption goes in or out."""
    names = ("kind", "name", "model", "prompt", "seed")
    decode = json.dumps({k: v for k, v in blip.claimed().items() if k not in names}, sort_keys=True)
    generator, prompt = f"hf:{blip.model}", digest("")
    for uid in (p.uid for p in SURVIVORS + MISNAMED):
        own = [r for r in whole(captioned, "captions_hf") if r["uid"] == uid]
        ids = [caption_id_of(uid, generator, prompt, decode, 0, index) for index in (0, 1)]
        assert [r["caption_id"] for r in own] == sorted(ids)
        for row in own:
            assert (row["generator"], row["prompt_hash"], row["decode"]) == (
                generator,
                prompt,
                decode,
            )
            assert (row["origin"], row["seed"], row["parent_id"], row["error"]) == (
                "generated",
                0,
                None,
                None,
            )
            assert set(row["caption"].split()) <= set(WORDS)
    urls = {row["uid"]: row["caption"] for row in whole(captioned, "urls")}
    assert urls == ORIGINAL


def test_without_rules_every_download_is_tried(tmp_path: Path, blip: HfCaptioner):
    """With no decisions there is nobody to leave out; a broken image is a row with its error."""
    data = stored(tmp_path, PAIRS)
    recaption(data, [blip], ())
    rows = whole(data, "captions_hf")
    assert {r["uid"] for r in rows} == {p.uid for p in PAIRS if p.image is not None}
    (failed,) = [r for r in rows if r["error"]]
    assert (failed["uid"], failed["caption"]) == (UNKNOWN[0].uid, None)
    assert failed["error"] == "undecodable image"


def test_captions_do_not_depend_on_parts(tmp_path: Path, blip: HfCaptioner):
    """The same pairs in other parts have the same captions under the same ids."""
    one, other = (stored(tmp_path / str(parts), discs(7), parts) for parts in (1, 3))
    for data in (one, other):
        recaption(data, [blip], ())
    assert whole(one, "captions_hf") == whole(other, "captions_hf")


# ------------------------------------------------------------------------------ again


def test_a_second_run_computes_nothing(tmp_path: Path, blip: HfCaptioner):
    """No file, no version, and the model is not even loaded."""
    model = shutil.copytree(blip.model, tmp_path / "model")
    config = blip.model_copy(update={"model": str(model)})
    data = judged(tmp_path / "set")
    recaption(data, [config], RULES)
    before, version = parts_of(data, "captions_hf"), data.at
    shutil.rmtree(model)
    again = Dataset(data.root)
    recaption(again, [config], RULES)
    assert parts_of(again, "captions_hf") == before
    assert again.at == version


def test_another_prompt_under_the_same_name_is_refused(captioned: Dataset, blip: HfCaptioner):
    """Captions of two prompts never mix in one table; under another name they stand beside."""
    config = blip.model_copy(update={"prompt": "a picture of"})
    with pytest.raises(ValueError, match=r"captions_hf.*prompt: .* -> 'a picture of'"):
        recaption(captioned, [config], RULES)


def test_changed_rules_cost_inference_for_new_pairs_alone(
    tmp_path: Path, blip: HfCaptioner, monkeypatch
):
    """A rule whose fault moves to the pair brings its pairs in, one that is added takes some out;
    what was said of the others stays word by word.
    """
    data = judged(tmp_path)
    recaption(data, [blip], RULES)
    before = {r["caption_id"]: r for r in whole(data, "captions_hf")}
    seen: list[str] = []
    call = Hf.__call__
    monkeypatch.setattr(Hf, "__call__", lambda self, b: (seen.extend(b.uids), call(self, b))[1])
    mild = [r.model_copy(update={"fault": "pair"}) if r.name == "blurred" else r for r in RULES]
    out = SURVIVORS[0]
    harsh = Rule(name="out", drop_if=f"urls__url = '{out.url}'", fault="image")
    filter_pairs(data, [*mild, harsh])
    recaption(data, [blip], [*mild, harsh])
    rows = whole(data, "captions_hf")
    assert {r["uid"] for r in rows} == {p.uid for p in SURVIVORS[1:] + MISNAMED + BLURRED}
    assert set(seen) == {p.uid for p in BLURRED}
    old = [r for r in rows if r["uid"] not in seen]
    assert all(before[r["caption_id"]] == r for r in old)


# ------------------------------------------------------------------------------ scores of captions


def test_generated_captions_are_scored_under_their_id(captioned: Dataset):
    """The view has the original's and the others' scores; `pairs` keeps one row per pair."""
    ids = {r["caption_id"] for r in whole(captioned, "captions_hf")}
    originals = {p.uid for p in PAIRS if p.image is not None}
    for name in ("clip", "bootstrap"):
        rows = query(captioned, f"SELECT * FROM scores_{name}").to_pylist()
        assert len(rows) == len(ids) + len(originals)
        assert {r["caption_id"] for r in rows} == ids | originals
        generated = [r for r in rows if r["caption_id"] in ids]
        assert all(r["clip_score"] is not None and r["error"] is None for r in generated)
        images = {r["uid"]: r["image_emb"] for r in rows if r["caption_id"] in originals}
        assert all(r["image_emb"] == pytest.approx(images[r["uid"]], abs=1e-3) for r in generated)
        own = {r["uid"]: r["clip_score"] for r in rows if r["caption_id"] == r["uid"]}
        pairs = query(captioned, f"SELECT uid, scores_{name}__clip_score AS s FROM pairs")
        assert pairs.num_rows == len(PAIRS)
        assert {r["uid"]: r["s"] for r in pairs.to_pylist()} == own | {GONE[0].uid: None}
    assert "scores_image_stats@hf" not in captioned.tables()


def test_a_generated_caption_is_scored_by_the_fold_of_its_pair(captioned: Dataset):
    """Who has not seen the pair judges its new caption too."""
    rows = query(captioned, "SELECT uid, fold FROM scores_bootstrap WHERE fold IS NOT NULL")
    folds: dict[str, set[int]] = {}
    for row in rows.to_pylist():
        folds.setdefault(row["uid"], set()).add(row["fold"])
    assert {len(found) for found in folds.values()} == {1}


def test_equal_words_have_equal_scores(tmp_path: Path, clip: ClipScorer, blip: HfCaptioner):
    """A caption scores the same whether it came with the pair or was generated for it."""
    data = stored(tmp_path / "one", discs(6))
    recaption(data, [blip], ())
    score(data, [clip])
    score_captions(data, [clip], [blip])
    made = {r["caption_id"]: r for r in whole(data, "captions_hf")}
    scores = query(data, "SELECT caption_id, clip_score FROM scores_clip").to_pylist()
    scores = {r["caption_id"]: r["clip_score"] for r in scores}
    image = {pair.uid: pair for pair in discs(6)}
    retold = [Stored(f"http://b/{c}", r["caption"], image[r["uid"]].image) for c, r in made.items()]
    other = stored(tmp_path / "other", retold)
    score(other, [clip])
    found = {r["uid"]: r["clip_score"] for r in whole(other, "scores_clip")}
    for pair, caption_id in zip(retold, made, strict=True):
        assert found[pair.uid] == pytest.approx(scores[caption_id], abs=1e-5)


# ------------------------------------------------------------------------------ what training sees


@pytest.mark.parametrize("use", ["original", "best", "all", "generated"])
def test_the_choice_reaches_the_shards(captioned: Dataset, tmp_path: Path, use: str):
    """subset_* lists the chosen captions, and the .txt of each sample is one of highest weight."""
    choose = ChooseCaption(use=use, by="clip" if use == "best" else None)
    compress(captioned, [AllSelector(name=f"with_{use}")], choose)
    rows = whole(captioned, f"subset_with_{use}")
    assert [r["uid"] for r in rows] == sorted(p.uid for p in SURVIVORS)
    made: dict[str, list[str]] = {}
    for row in whole(captioned, "captions_hf"):
        made.setdefault(row["uid"], []).append(row["caption_id"])
    scores = {
        r["caption_id"]: r["clip_score"]
        for r in query(captioned, "SELECT caption_id, clip_score FROM scores_clip").to_pylist()
    }
    for row in rows:
        every = [row["uid"], *made[row["uid"]]]
        expected = {
            "original": every[:1],
            "generated": every[1:],
            "all": every,
            "best": [max(every, key=scores.__getitem__)],
        }[use]
        assert [c["caption_id"] for c in row["captions"]] == expected
        assert sum(c["weight"] for c in row["captions"]) == pytest.approx(1)

    out = export(captioned, ExportConfig(subset=f"with_{use}", out=str(tmp_path / "out")))
    with tarfile.open(Path(out, "00000000.tar")) as tar:
        texts = {
            n[:32]: tar.extractfile(n).read().decode() for n in tar.getnames() if n.endswith("txt")
        }
    assert texts == {row["uid"]: row["captions"][0]["text"] for row in rows}
    assert (texts == {p.uid: p.caption for p in SURVIVORS}) == (use in ("original", "all"))
