"""noise: how many pairs of a pool are mismatches, from planted ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.fits import noise
from models.contrast import contrastive_loss
from schemas.configs import NoiseScorer
from schemas.tables import draw
from tests.embedded import (
    LEVELS,
    Embedded,
    dataset,
    embedded,
    of_own_folds,
    plain_losses,
    reference_sets,
    seen,
    turned,
    whole,
)

CONFIG = NoiseScorer(of="clip", batch=64, rounds=2)


def fit_of(data: Dataset, config: NoiseScorer = CONFIG):
    """What was fitted."""
    folder = Path(data.path, "_artifacts", config.name, noise.fit(data, config))
    return json.loads((folder / noise.FIT).read_text())


@pytest.mark.parametrize("planted", [0, 0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("level", LEVELS)
def test_the_noise_rate_is_the_planted_share(level: str, planted: float):
    """Within the sampling error of 3 000 pairs, clean pools below 1.5 %, at three signal levels."""
    pool = embedded(3000, LEVELS[level], planted)
    found = noise.fitted([(pool.pairs(), reference_sets(pool))], CONFIG)
    assert found["noise_rate"] == pytest.approx(planted, abs=0.015 + 0.1 * planted)
    assert found["lower"] <= found["noise_rate"] <= found["upper"]
    assert found["lower"] - 0.02 <= planted <= found["upper"] + 0.02
    assert found["auc"] > 0.85  # by the fitted curve; of half a pool it is known roughly


@pytest.mark.parametrize("signal", [0.4, 0.5])
def test_a_weak_scorer_does_not_make_a_clean_pool_noisy(signal: float):
    """AUC 0.78 and 0.87: the interval has 0, and 10 % planted are within theirs."""
    for planted in (0.0, 0.1):
        pool = embedded(4096, signal, planted, seed=2)
        found = noise.fitted([(pool.pairs(), reference_sets(pool))], CONFIG)
        assert found["lower"] <= planted <= found["upper"]
        assert (found["lower"] == 0) or planted


def test_neither_parts_nor_order_change_what_is_fitted(tmp_path: Path):
    """To the bit: the pairs come in the order of their hash."""
    pool = embedded(200, planted=0.2)
    found = [fit_of(dataset(tmp_path / str(parts), pool, parts)) for parts in (1, 4)]
    assert found[0] == found[1]
    assert found[0]["pairs"] == 200


def test_only_so_many_pairs_are_fitted_on(tmp_path: Path):
    """And what has an error is none of them."""
    data = dataset(tmp_path, embedded(120), errors=dict.fromkeys(range(50), "no image"))
    assert fit_of(data)["pairs"] == 70
    assert fit_of(data, CONFIG.model_copy(update={"max_pairs": 30}))["pairs"] == 30


def test_all_folds_of_a_bootstrap_are_one_sample(tmp_path: Path):
    """What is fitted is that of the plain losses of all folds, each against its own pairs, and of
    mismatches within a fold."""
    folds = [int(i % 3 == 0) for i in range(90)]
    own = turned(embedded(90, planted=0.2), folds)
    data = dataset(tmp_path, seen(own), name="bootstrap", **of_own_folds(own, folds))
    found = fit_of(data, NoiseScorer(batch=64))
    assert found["pairs"] == 90
    true, wrong = [], []
    for fold in (0, 1):
        rows = sorted(np.flatnonzero(np.equal(folds, fold)).tolist(), key=_order(own))
        true += plain_losses(own, rows, rows, 0.07).tolist()
        pairs = own.take(rows).pairs()
        chunks, sets = noise.mismatches(pairs), whole(own.take(rows))
        wrong += [contrastive_loss(chunk, sets, 0.07, True) for chunk in chunks]
    assert found["losses"] == pytest.approx(np.quantile(true, noise.QUANTILES).tolist(), abs=1e-5)
    mismatched = np.quantile(np.concatenate(wrong), noise.QUANTILES).tolist()
    assert found["losses_of_mismatches"] == pytest.approx(mismatched, abs=1e-5)


def _order(pool: Embedded):
    """The order in which rows are drawn."""
    uids = pool.uids
    return lambda row: draw(0, f"noise {uids[row]}")


def test_the_rate_of_a_cross_fitted_pool_is_the_planted_share(tmp_path: Path):
    """Though the folds' spaces are turned against each other, and some folds are larger."""
    folds = [min(i % 5, 2) for i in range(2000)]
    own = turned(embedded(2000, planted=0.2), folds)
    data = dataset(tmp_path, seen(own), name="bootstrap", **of_own_folds(own, folds))
    found = fit_of(data, NoiseScorer(batch=128, rounds=2))
    assert found["pairs"] == 2000
    assert found["noise_rate"] == pytest.approx(0.2, abs=0.035)
    assert found["auc"] > 0.95


def test_parts_do_not_change_a_cross_fitted_fit(tmp_path: Path):
    """To the bit, the sets of every fold included."""
    folds = [i % 3 for i in range(120)]
    own = turned(embedded(120, planted=0.2), folds)
    made = []
    for parts in (1, 5):
        root = tmp_path / str(parts)
        data = dataset(root, own, parts, name="bootstrap", **of_own_folds(own, folds))
        folder = Path(data.path, "_artifacts", "noise", noise.fit(data, NoiseScorer(batch=32)))
        made.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")})
    assert made[0] == made[1]
    assert len(made[0]) == 3 * 3 + 1


def test_mismatches_are_other_pairs_captions():
    """Each image with three others' captions, its own or a copy's never."""
    pool = embedded(10)
    made = list(noise.mismatches(pool.pairs()))
    assert sum(map(len, made)) == 3 * 10
    codes = pool.pairs().codes
    for by, wrong in enumerate(made, 1):
        assert np.array_equal(wrong.images, pool.images)
        assert np.array_equal(wrong.texts, np.roll(pool.texts, -by, axis=0))
        assert np.array_equal(wrong.codes[:, 0], codes[:, 0])
        assert np.array_equal(wrong.codes[:, 1], np.roll(codes[:, 1], -by))
        dots = (wrong.images.astype(float) * wrong.texts.astype(float)).sum(axis=1)
        assert wrong.scores == pytest.approx(dots, abs=1e-5)
    doubled = Embedded(**(vars(pool) | {"captions": ["a photo"] * 2 + pool.captions[2:]}))
    assert sum(map(len, noise.mismatches(doubled.pairs()))) == 3 * 10 - 1


def test_the_rate_is_said(tmp_path: Path, caplog):
    """In the log, in percent with its interval, and again when it was there already."""
    data = dataset(tmp_path, embedded(400, planted=0.25))
    with caplog.at_level(logging.INFO, logger="curate"):
        noise.fit(data, CONFIG)
        noise.fit(data, CONFIG)
    said = [r.getMessage() for r in caplog.records if "mismatches" in r.getMessage()]
    found = fit_of(data)
    share, low, high = (f"{100 * found[k]:.1f}" for k in ("noise_rate", "lower", "upper"))
    line = f"noise: {share} % of the pool look like mismatches (95 % interval {low} to {high})"
    assert said == [f"{line}, by 400 pairs"] * 2


@pytest.mark.parametrize("size", [1, 12])
def test_a_pool_with_nothing_to_compare_is_refused(tmp_path: Path, size: int):
    """One pair, or one caption on all images: said, with the way out."""
    pool = embedded(size)
    same = Embedded(**(vars(pool) | {"captions": ["a photo"] * size}))
    with pytest.raises(ValueError, match=r"scorer 'noise' compares.*leave it out"):
        noise.fit(dataset(tmp_path, same), CONFIG)
