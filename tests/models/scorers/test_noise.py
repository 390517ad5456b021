"""noise: the probability that a pair is a mismatch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from curate.demo.verdict import auc
from curate.fits import noise as fits
from models.scorers.noise import FIT, Noise
from models.scorers.stored import ALONE
from schemas.configs import NoiseScorer
from schemas.tables import SCORES
from tests.embedded import LEVELS, Embedded, batch_of, embedded, reference_sets

CONFIG = NoiseScorer(of="clip")


def scorer(folder: Path, pool: Embedded, batch: int = 64) -> Noise:
    """Fitted to the pool."""
    references = reference_sets(pool, batch, 2)
    for name, array in vars(references).items():
        np.save(folder / f"{name}.npy", array)
    (folder / FIT).write_text(json.dumps(fits.fitted([(pool.pairs(), references)], CONFIG)))
    return Noise(CONFIG, folder)


@pytest.mark.parametrize("level", LEVELS)
def test_planted_mismatches_stand_out(tmp_path: Path, level: str):
    """By loss and by probability, AUC 0.95 and more, whose mean is near the planted share."""
    pool = embedded(1500, LEVELS[level], 0.2)
    found = scorer(tmp_path, pool)(batch_of(pool))
    losses, probs = np.array(found["loss"]), np.array(found["noise_prob"])
    bad = pool.planted
    assert auc(losses[bad], losses[~bad]) >= 0.95
    assert auc(probs[bad], probs[~bad]) == pytest.approx(auc(losses[bad], losses[~bad]), abs=5e-3)
    assert probs.mean() == pytest.approx(0.2, abs=0.05)
    assert probs[bad].mean() > 0.7
    assert probs[~bad].mean() < 0.1


@pytest.mark.parametrize("level", LEVELS)
def test_no_pair_of_a_clean_pool_is_noise(tmp_path: Path, level: str):
    """The mean probability is below 5 %, as a mixture alone never says."""
    pool = embedded(1500, LEVELS[level])
    assert np.mean(scorer(tmp_path, pool)(batch_of(pool))["noise_prob"]) < 0.02


def test_the_probability_never_falls_as_the_loss_grows(tmp_path: Path):
    """Over a pool's pairs."""
    pool = embedded(400, 0.7, 0.3)
    found = scorer(tmp_path, pool)(batch_of(pool))
    order = np.argsort(found["loss"])
    assert np.all(np.diff(np.array(found["noise_prob"])[order]) >= 0)


def test_order_and_batches_change_nothing(tmp_path: Path, take):
    """Alone, in pairs or reversed: the same to 1e-5."""
    pool = embedded(60, planted=0.3)
    unit, batch = scorer(tmp_path, pool, 30), batch_of(pool)
    found = unit(batch)
    back = list(range(60))[::-1]
    pieces = [unit(take(batch, [i, i + 1])) for i in range(0, 60, 2)]
    for name in ("loss", "noise_prob"):
        values = np.array(found[name])
        assert unit(take(batch, back))[name] == pytest.approx(values[back], abs=1e-5)
        assert [v for p in pieces for v in p[name]] == pytest.approx(values, abs=1e-5)


def test_what_has_no_embedding_has_an_error_and_no_value(tmp_path: Path):
    """The reason of the scorer that it reads; never a default probability."""
    pool = embedded(40, planted=0.3)
    batch = batch_of(pool)
    batch.columns["image_emb"][1] = None
    batch.image_errors[1] = "undecodable image"
    found = scorer(tmp_path, pool, 20)(batch)
    assert set(found) == {*SCORES["noise"].names, "error"}
    assert found["error"][1] == "not scored by clip: undecodable image"
    assert found["loss"][1] is None
    assert found["noise_prob"][1] is None
    assert found["error"].count(None) == 39
    assert np.isfinite([v for v in found["noise_prob"] if v is not None]).all()


def test_a_pair_without_others_has_an_error(tmp_path: Path):
    """One whose caption is every reference's."""
    pool = embedded(40, planted=0.3)
    unit = scorer(tmp_path, pool, 20)
    same = Embedded(**(vars(pool) | {"captions": ["a photo"] * 40}))
    np.save(tmp_path / "codes.npy", reference_sets(same, 20, 2).codes)
    found = Noise(CONFIG, tmp_path)(batch_of(same))
    assert unit.mixture.high > unit.mixture.low
    assert found["error"] == [ALONE] * 40
    assert found["noise_prob"] == [None] * 40


def test_what_is_not_fitted_is_refused():
    """With the scorer."""
    with pytest.raises(ValueError, match="scorer noise: is fitted on a pool first"):
        Noise(CONFIG, None)
