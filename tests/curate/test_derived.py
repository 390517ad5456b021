"""derived: scores that are computed from what another scorer has stored, part by part."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.derived import score_derived, stored_batches
from curate.filter import filter_pairs
from curate.score import score
from models.scorers.ncl import Ncl
from schemas.configs import ClipScorer, ImageStatsScorer, NclScorer, NoiseScorer, Rule
from schemas.tables import CAPTIONS, caption_id_of, scores
from tests.embedded import (
    DIM,
    Embedded,
    batch_of,
    dataset,
    embedded,
    of_own_folds,
    plain_losses,
    seen,
    turned,
)
from tests.stored import BROKEN, SMALL, Stored, discs, parts_of, stored
from tests.tiny import add_table, whole

POOL = embedded(80, planted=0.2)
NCL = NclScorer(batch=32, rounds=2, temperature=0.07)
NOISE = NoiseScorer(of="clip", batch=32, rounds=2)
ERRORS = {7: "undecodable image"}
NCL_SCORE = ("scores_ncl", "ncl_score")


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Dataset:
    """The pool with both scores, one pair of which has no embedding."""
    data = dataset(tmp_path_factory.mktemp("scored"), POOL, errors=ERRORS)
    score_derived(data, [NCL, NOISE, ImageStatsScorer()])
    return data


def column(data: Dataset, table: str, name: str) -> dict[str, float]:
    """A score by uid."""
    return {row["uid"]: row[name] for row in whole(data, table)}


@pytest.mark.parametrize(
    ("config", "names"), [(NCL, ["ncl_score"]), (NOISE, ["loss", "noise_prob"])]
)
def test_every_scored_pair_has_a_row(scored: Dataset, config, names):
    """In the table's schema, sorted by uid, nulls and the reason where there was no embedding;
    scorers without `of` are passed over."""
    table = f"scores_{config.name}"
    rows = whole(scored, table)
    assert [row["uid"] for row in rows] == [row["caption_id"] for row in rows] == sorted(POOL.uids)
    for row in rows:
        bad = row["uid"] == POOL.uids[7]
        assert row["error"] == ("not scored by clip: undecodable image" if bad else None)
        assert [row[name] is None for name in names] == [bad] * len(names)
    for part in scored.parts(table):
        schema = scored.read(table, part).schema.remove_metadata()
        assert schema == scores(config.kind)
    assert "scores_image_stats" not in scored.tables()


def test_the_rows_are_what_the_scorer_says_of_the_embeddings(scored: Dataset):
    """Each pair has its own score, by its uid."""
    key = scored.artifact_in_use("scores_ncl")
    found = Ncl(NCL, Path(scored.path, "_artifacts/ncl", key))(batch_of(POOL))["ncl_score"]
    stored = column(scored, "scores_ncl", "ncl_score")
    for row, uid in enumerate(POOL.uids):
        if row not in ERRORS:
            assert stored[uid] == pytest.approx(found[row], abs=1e-5)


@pytest.mark.parametrize("parts", [1, 4])
def test_neither_parts_nor_batches_nor_order_change_a_score(
    scored: Dataset, tmp_path: Path, monkeypatch, parts: int
):
    """The same to 1e-5 from other parts, five pairs at once."""
    monkeypatch.setattr("curate.derived.stored_batches.__defaults__", ("", 5))
    other = dataset(tmp_path, POOL, parts, ERRORS)
    score_derived(other, [NOISE, NCL])
    for table, name in (
        ("scores_ncl", "ncl_score"),
        ("scores_noise", "loss"),
        ("scores_noise", "noise_prob"),
    ):
        mine, theirs = column(other, table, name), column(scored, table, name)
        assert list(mine) == list(theirs)
        known = [uid for uid in mine if uid != POOL.uids[7]]
        assert [mine[u] for u in known] == pytest.approx([theirs[u] for u in known], abs=1e-5)


def test_a_part_that_is_there_is_not_computed_again(scored: Dataset, tmp_path: Path):
    """A second call publishes nothing; a lost part comes back with the same bytes."""
    data = dataset(tmp_path, POOL, errors=ERRORS)
    score_derived(data, [NCL, NOISE])
    version, before = data.at, parts_of(data, "scores_noise")
    assert before == parts_of(scored, "scores_noise")
    score_derived(data, [NCL, NOISE])
    assert data.at == version
    data.drop("scores_noise")
    shutil.rmtree(tmp_path / "scores_noise")
    score_derived(data, [NCL, NOISE])
    assert {n: len(b) for n, b in parts_of(data, "scores_noise").items()}.keys() == before.keys()
    assert column(data, "scores_noise", "loss") == column(scored, "scores_noise", "loss")


@pytest.mark.parametrize("refit", ["frozen", "every_version"])
def test_more_pairs_are_compared_with_the_old_or_with_new_batches(tmp_path: Path, refit: str):
    """Frozen keeps the artifact and the parts that are there; every_version fits anew."""
    config = NCL.model_copy(update={"refit": refit})
    more = embedded(40, seed=9)
    data = dataset(tmp_path, POOL, lambda uid: 0)
    score_derived(data, [config])
    key, before = data.artifact_in_use("scores_ncl"), parts_of(data, "scores_ncl")
    dataset(tmp_path, more, lambda uid: 1, name="clip")
    data.refresh()
    score_derived(data, [config])
    kept = refit == "frozen"
    assert data.rows("scores_ncl") == 120
    assert (data.artifact_in_use("scores_ncl") == key) == kept
    assert (before.items() <= parts_of(data, "scores_ncl").items()) == kept


def test_frozen_does_not_outlive_the_space_that_it_was_fitted_in(tmp_path: Path):
    """Embeddings of another model are compared with batches of that model."""
    config = NCL.model_copy(update={"refit": "frozen"})
    data = dataset(tmp_path, POOL)
    score_derived(data, [config])
    key, before = data.artifact_in_use("scores_ncl"), column(data, "scores_ncl", "ncl_score")
    other = embedded(80, signal=2.0, seed=3)
    moved = Embedded(**(vars(POOL) | {"images": other.images, "texts": other.texts}))
    claim = data.claim("scores_clip", ClipScorer(model="other"), of=("urls",), revisable=True)
    fresh = dataset(tmp_path / "fresh", moved)
    for part in data.parts("urls"):
        data.write(claim, part, fresh.read("scores_clip", part))
    data.publish(claim)
    score_derived(data, [config])
    assert data.artifact_in_use("scores_ncl").split("-")[0] != key.split("-")[0]
    after = column(data, "scores_ncl", "ncl_score")
    assert min(abs(after[uid] - before[uid]) for uid in before) > 1e-4


def test_generated_captions_are_scored_by_what_the_pool_was_fitted_to(tmp_path: Path):
    """Into scores_<name>@<captioner> under their caption_id, with the artifact of the originals."""
    data = dataset(tmp_path, POOL)
    score_derived(data, [NCL])
    of = {uid: caption_id_of(uid, "hf", "", "", 0, 0) for uid in POOL.uids}
    row_of = {uid: row for row, uid in enumerate(POOL.uids)}
    schema = scores("clip", {"image_emb": DIM, "text_emb": DIM})
    made, kept = {}, {}
    for part in data.parts("urls"):
        uids = data.read("urls", part)["uid"].to_pylist()
        made[part] = pa.Table.from_pylist(
            [{"uid": u, "caption_id": of[u], "caption": f"new {u}"} for u in uids], CAPTIONS
        )
        told = data.read("scores_clip", part).to_pylist()
        kept[part] = pa.Table.from_pylist([r | {"caption_id": of[r["uid"]]} for r in told], schema)
    add_table(data, "captions_hf", made, ())
    add_table(data, "scores_clip@hf", kept, ())
    score_derived(data, [NCL], captioner="hf")
    found = whole(data, "scores_ncl@hf")
    assert {row["caption_id"] for row in found} == set(of.values())
    original = column(data, "scores_ncl", "ncl_score")
    for row in found:  # the same embeddings under another caption: the same score
        assert row["ncl_score"] == pytest.approx(original[row["uid"]], abs=1e-5)
        assert row["uid"] in row_of
    assert data.artifact_in_use("scores_ncl@hf") == data.artifact_in_use("scores_ncl")


@pytest.mark.parametrize(
    "rule",
    [
        Rule(name="noisy", value="scores_noise__noise_prob", drop_above=0.5),
        Rule(name="noisy", drop_if="scores_noise__loss > 4.0"),
        Rule(name="noisy", value="scores_ncl__ncl_score", keep_top=0.8),
    ],
    ids=["probability", "loss", "ncl"],
)
def test_a_rule_can_use_each_of_them(scored: Dataset, tmp_path: Path, rule: Rule):
    """Mostly planted mismatches go; the pair without a score is unknown."""
    data = dataset(tmp_path, POOL, errors=ERRORS)
    score_derived(data, [NCL, NOISE])
    filter_pairs(data, [rule])
    reasons = column(data, "decisions_quality", "reason")
    assert reasons[POOL.uids[7]] == "unknown noisy"
    dropped = {uid for uid, reason in reasons.items() if reason == "noisy"}
    planted = {uid for uid, bad in zip(POOL.uids, POOL.planted, strict=True) if bad}
    assert len(dropped & planted) >= 0.7 * len(planted)
    assert len(dropped - planted) <= 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NclScorer(of="other"), r"scorer 'ncl' reads what 'other' stored.*no table 'scores_other'"),
        (NclScorer(of="stats"), r"scores_stats of .* has no .*image_emb.*`embeddings: true`"),
        (NoiseScorer(), r"scorer 'noise' reads what 'bootstrap' stored"),
    ],
    ids=["no table", "no embeddings", "default"],
)
def test_what_is_not_stored_is_asked_for(tmp_path: Path, config, message: str):
    """The scorer, what is lacking and the ways out; nothing is claimed."""
    data = dataset(tmp_path, POOL)
    rows = {p: data.read("scores_clip", p, ["uid", "caption_id", "error"]) for p in (0, 1)}
    add_table(data, "scores_stats", rows, ())
    with pytest.raises(ValueError, match=message):
        score_derived(data, [config])
    assert not (tmp_path / f"scores_{config.name}").exists()


def test_the_pass_over_the_images_is_followed_by_what_reads_its_table(tmp_path: Path):
    """One call: a bootstrap is trained and scores, then noise and negCLIPLoss of what it stored; a
    picture that cannot be decoded has the same reason in all three."""
    pairs = [*discs(16), Stored("http://a/broken.jpg", "a broken picture", BROKEN)]
    data = stored(tmp_path, pairs)
    ncl = NclScorer(of="bootstrap", batch=8, rounds=2, temperature=0.07)
    score(data, [NoiseScorer(batch=8, rounds=2), SMALL, ncl])
    for table, name in (("scores_noise", "loss"), ("scores_ncl", "ncl_score")):
        rows = {row["uid"]: row for row in whole(data, table)}
        assert len(rows) == 17
        broken = rows.pop(pairs[-1].uid)
        assert (broken[name], broken["error"]) == (
            None,
            "not scored by bootstrap: undecodable image",
        )
        assert all(np.isfinite(row[name]) and row["error"] is None for row in rows.values())


def test_pairs_of_a_bootstrap_are_compared_within_their_fold(tmp_path: Path):
    """Loss and negCLIPLoss of a trained bootstrap are the plain ones of what the model that held a
    pair out says of the pairs that it held out, by hand from the stored columns."""
    data = stored(tmp_path, discs(24))
    ncl = NclScorer(of="bootstrap", temperature=0.07)
    score(data, [SMALL, NoiseScorer(), ncl])
    rows = whole(data, "scores_bootstrap")
    own, common = (_by(rows, f"{space}image_emb", f"{space}text_emb") for space in ("own_", ""))
    losses, found = (column(data, *of) for of in (("scores_noise", "loss"), NCL_SCORE))
    cosines = [row["clip_score"] for row in rows]
    for fold in (0, 1):
        mine = [at for at, row in enumerate(rows) if row["fold"] == fold]
        assert len(mine) > 4
        expected = plain_losses(own, mine, mine, 0.07, cosines)
        uids = [rows[at]["uid"] for at in mine]
        assert [losses[uid] for uid in uids] == pytest.approx(expected, abs=1e-5)
        assert [found[uid] for uid in uids] == pytest.approx(-0.07 * expected, abs=1e-5)
        by_fold_0 = plain_losses(common, mine, mine, 0.07, cosines)
        assert (np.abs(by_fold_0 - expected).max() > 0.01) == (fold == 1)


def _by(rows, images: str, texts: str) -> Embedded:
    """Stored rows by two of their columns; all images and captions are distinct."""
    emb = (np.array([row[name] for row in rows], np.float16) for name in (images, texts))
    uids = [row["uid"] for row in rows]
    return Embedded(*emb, uids, uids, np.zeros(len(rows), bool))


@pytest.mark.parametrize("parts", [1, 4])
def test_neither_parts_nor_batches_change_a_cross_fitted_score(
    tmp_path: Path, monkeypatch, parts: int
):
    """The plain losses of each fold to 1e-5, from one part or four, seven pairs at once; the
    embeddings of the common space change nothing."""
    monkeypatch.setattr("curate.derived.stored_batches.__defaults__", ("", 7))
    folds = [int(i % 3 == 0) for i in range(80)]
    own = turned(POOL, folds)
    data = dataset(tmp_path, seen(own), parts, name="bootstrap", **of_own_folds(own, folds))
    score_derived(data, [NoiseScorer(), NclScorer(of="bootstrap", temperature=0.07)])
    losses, found = (column(data, *of) for of in (("scores_noise", "loss"), NCL_SCORE))
    for fold in (0, 1):
        rows = [row for row in range(80) if folds[row] == fold]
        expected = plain_losses(own, rows, rows, 0.07)
        assert [losses[own.uids[row]] for row in rows] == pytest.approx(expected, abs=1e-5)
        scores_ncl = [found[own.uids[row]] for row in rows]
        assert scores_ncl == pytest.approx(-0.07 * expected, abs=1e-5)


def test_a_changed_config_is_refused_before_anything_is_fitted(scored: Dataset):
    """With the field, and the artifacts as they were."""
    fitted = sorted(p.name for p in Path(scored.path, "_artifacts/ncl").iterdir())
    with pytest.raises(ValueError, match=r"scores_ncl.*rounds: 2 -> 3.*curate drop"):
        score_derived(scored, [NCL.model_copy(update={"rounds": 3})])
    assert sorted(p.name for p in Path(scored.path, "_artifacts/ncl").iterdir()) == fitted


def test_a_part_without_pairs_gives_one_empty_batch(tmp_path: Path):
    """And its tables have no rows but all columns."""
    data = dataset(tmp_path, POOL, lambda uid: 0)
    dataset(tmp_path, embedded(0), lambda uid: 1)
    assert len(list(stored_batches(data, 0, "scores_clip"))) == 1


@pytest.mark.slow
def test_ray_workers_write_the_same(scored: Dataset, tmp_path: Path):
    """Two actors, the same scores."""
    data = dataset(tmp_path, POOL, errors=ERRORS)
    score_derived(data, [NCL, NOISE], workers=2)
    for table, name in (("scores_ncl", "ncl_score"), ("scores_noise", "noise_prob")):
        mine, theirs = column(data, table, name), column(scored, table, name)
        known = [uid for uid in mine if uid != POOL.uids[7]]
        assert [mine[u] for u in known] == pytest.approx([theirs[u] for u in known], abs=1e-5)
        assert np.isfinite([mine[u] for u in known]).all()
