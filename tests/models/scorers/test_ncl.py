"""ncl: the cosine of a pair less what it has with others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.base import Batch
from models.scorers.ncl import Ncl
from models.scorers.stored import ALONE
from schemas.configs import NclScorer
from schemas.tables import SCORES
from tests.embedded import Embedded, batch_of, embedded, whole


def fitted(folder: Path, pool: Embedded) -> Path:
    """The pool as the one reference set."""
    for name, array in vars(whole(pool)).items():
        np.save(folder / f"{name}.npy", array)
    return folder


def ncl(folder: Path, pool: Embedded, temperature: float = 0.01) -> Ncl:
    return Ncl(NclScorer(temperature=temperature), fitted(folder, pool))


def scored(scorer: Ncl, batch: Batch):
    """Its scores as an array; every error is a failure."""
    found = scorer(batch)
    assert found["error"] == [None] * len(batch)
    return np.array(found["ncl_score"], float)


@pytest.mark.parametrize("temperature", [0.01, 0.07])
def test_on_one_batch_it_is_minus_tau_times_the_loss_of_clip(tmp_path: Path, temperature: float):
    """Against the plain reference, and by the paper's own formula."""
    pool = embedded(200, planted=0.1)
    found = scored(ncl(tmp_path, pool, temperature), batch_of(pool))
    cosines = pool.images.astype(float) @ pool.texts.astype(float).T
    rows, columns = (np.exp(c / temperature) for c in (cosines, cosines.T))
    own = np.diag(cosines)
    losses = [-np.log(np.diag(e) / e.sum(axis=1)) for e in (rows, columns)]
    paper = own - temperature / 2 * sum(np.log(e.sum(axis=1)) for e in (rows, columns))
    assert found == pytest.approx(-temperature * (losses[0] + losses[1]) / 2, abs=1e-5)
    assert found == pytest.approx(paper, abs=1e-5)


def test_a_caption_that_fits_everything_is_seen_through(tmp_path: Path):
    """The middle of all captions has a cosine above most pairs' and a score below most pairs'."""
    pool = embedded(400, signal=1.0)
    middle = pool.images.astype(float).mean(axis=0)
    pool.texts[0] = (middle / np.linalg.norm(middle) * 0.7 + pool.texts[0] * 0.7).astype(np.float16)
    pool.texts[0] /= np.linalg.norm(pool.texts[0].astype(float))
    anisotropic = Embedded(
        **(vars(pool) | {"images": _shifted(pool.images, middle), "texts": pool.texts})
    )
    found = scored(ncl(tmp_path, anisotropic, 0.07), batch_of(anisotropic))
    rank_by = [(values < values[0]).mean() for values in (anisotropic.cosines, found)]
    assert rank_by[0] > 0.6
    assert rank_by[1] < rank_by[0] - 0.2


def _shifted(images, towards):
    moved = images.astype(float) + 0.8 * towards / np.linalg.norm(towards)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float16)


def test_order_and_batches_change_nothing(tmp_path: Path, take):
    """Alone, in pairs or reversed: the same to 1e-5."""
    pool = embedded(60)
    scorer, batch = ncl(tmp_path, pool), batch_of(pool)
    found = scored(scorer, batch)
    back = list(range(60))[::-1]
    assert scored(scorer, take(batch, back)) == pytest.approx(found[back], abs=1e-5)
    pieces = [scored(scorer, take(batch, [i, i + 1])) for i in range(0, 60, 2)]
    assert np.concatenate(pieces) == pytest.approx(found, abs=1e-5)


def test_constant_embeddings_give_one_score(tmp_path: Path):
    """A model that sees the same in everything: -tau log(B) for all, whatever the cosine."""
    pool = embedded(50)
    same = Embedded(
        **(
            vars(pool)
            | {"images": pool.images[:1].repeat(50, 0), "texts": pool.texts[:1].repeat(50, 0)}
        )
    )
    found = scored(ncl(tmp_path, same, 0.07), batch_of(same))
    assert found == pytest.approx(np.full(50, -0.07 * np.log(50)), abs=1e-5)


def test_shuffled_images_change_every_score(tmp_path: Path):
    """The same captions on other images, and lower on the whole."""
    pool = embedded(80)
    turned = Embedded(
        **(
            vars(pool)
            | {"images": np.roll(pool.images, 1, 0), "hashes": pool.hashes[-1:] + pool.hashes[:-1]}
        )
    )
    one, other = (scored(ncl(tmp_path, pool), batch_of(p)) for p in (pool, turned))
    assert np.abs(one - other).min() > 1e-4
    assert other.mean() < one.mean() - 0.1


def test_what_has_no_embedding_has_an_error(tmp_path: Path):
    """The reason of the scorer that it reads; NaN is no direction; the others have their scores."""
    pool = embedded(6)
    batch = batch_of(pool)
    for column in ("image_emb", "text_emb", "clip_score"):
        batch.columns[column][1] = None
    batch.columns["text_emb"][2] = np.full(64, np.nan, np.float16)
    batch.image_errors[1] = "undecodable image"
    found = ncl(tmp_path, pool)(batch)
    assert found["error"] == [
        None,
        "not scored by clip: undecodable image",
        "not scored by clip: no embedding",
        *[None] * 3,
    ]
    assert [score is None for score in found["ncl_score"]] == [
        e is not None for e in found["error"]
    ]


def test_a_pair_without_others_has_an_error(tmp_path: Path):
    """A pool of one: no score, not the best one."""
    pool = embedded(1)
    assert ncl(tmp_path, pool)(batch_of(pool)) == {"ncl_score": [None], "error": [ALONE]}


def test_hostile_captions_are_scored_by_their_embeddings(tmp_path: Path):
    """Ten megabytes, right to left, emoji, unpaired surrogates, nothing: only compared."""
    pool = embedded(5)
    captions = ["a" * 10_000_000, "كلب في الحديقة", "👩‍👩‍👧‍👦", "\ud800", ""]
    hostile = Embedded(**(vars(pool) | {"captions": captions}))
    batch = batch_of(pool)
    batch.captions[:] = captions
    found = scored(ncl(tmp_path, pool), batch)
    assert found == pytest.approx(scored(ncl(tmp_path, pool), batch_of(pool)), abs=1e-5)
    assert len(hostile) == 5


def test_no_pairs_give_no_rows_but_all_columns(tmp_path: Path, take):
    """A part without downloads."""
    pool = embedded(4)
    assert ncl(tmp_path, pool)(take(batch_of(pool), [])) == {"ncl_score": [], "error": []}
    assert set(SCORES["ncl"].names) == {"ncl_score"}


def test_what_is_not_fitted_or_of_another_model_is_refused(tmp_path: Path):
    """With the scorer, what was found and what to do."""
    with pytest.raises(ValueError, match="scorer ncl: is fitted on a pool first"):
        Ncl(NclScorer(), None)
    pool = embedded(4)
    batch = batch_of(pool)
    batch.columns["image_emb"] = [np.ones(8, np.float16)] * 4
    batch.columns["text_emb"] = [np.ones(8, np.float16)] * 4
    with pytest.raises(ValueError, match=r"length 64, those of scores_clip have 8.*every_version"):
        ncl(tmp_path, pool)(batch)
