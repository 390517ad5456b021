"""Reference batches: drawn by hash, gathered from the parts, the same however the pool lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.fits import ncl
from models.contrast import References, load_spaces
from schemas.configs import NclScorer
from schemas.tables import draw
from tests.embedded import dataset, embedded, of_own_folds, turned

POOL = embedded(60)
CONFIG = NclScorer(batch=16, rounds=3, seed=5)


def sets_of(data: Dataset, config: NclScorer = CONFIG) -> References:
    """What was fitted."""
    return References.load(Path(data.path, "_artifacts", config.name, ncl.fit(data, config)))


def test_each_batch_has_the_pairs_with_the_lowest_hash(tmp_path: Path):
    """Drawn anew per round by hash(seed, round, uid), with the embeddings and codes of the pair."""
    found = sets_of(dataset(tmp_path, POOL, errors={3: "no image"}))
    assert found.images.shape == found.texts.shape == (3, 16, 64)
    codes = POOL.pairs().codes
    good = [row for row in range(60) if row != 3]
    for which in range(3):
        by_hash = sorted(good, key=lambda row: draw(5, f"reference {which} {POOL.uids[row]}"))
        chosen = by_hash[:16]
        assert np.array_equal(found.images[which], POOL.images[chosen])
        assert np.array_equal(found.texts[which], POOL.texts[chosen])
        assert np.array_equal(found.codes[which], codes[chosen])


def test_a_pool_smaller_than_a_batch_is_the_one_batch(tmp_path: Path):
    """One round, with every scored pair once."""
    found = sets_of(dataset(tmp_path, POOL), NclScorer(batch=100))
    assert found.codes.shape == (1, 60, 2)
    assert len(set(found.codes[0, :, 0].tolist())) == 60


@pytest.mark.parametrize("parts", [1, 5])
def test_neither_parts_nor_order_change_the_batches(tmp_path: Path, parts: int):
    """The same files from other parts, some of them without a drawn pair."""
    one = sets_of(dataset(tmp_path / "one", POOL))
    back = POOL.take(list(range(60)))
    other = sets_of(dataset(tmp_path / "other", back, parts))
    for name in ("images", "texts", "codes"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_each_fold_has_batches_of_its_own_pairs_in_its_own_space(tmp_path: Path):
    """Those with the lowest hash in the fold, by their own embeddings; a fold smaller than a batch
    is its one batch, and what has an error is in none."""
    folds = [0] * 40 + [1] * 20
    folds[7], own = 2, turned(POOL, folds)
    stored = of_own_folds(own, folds)
    data = dataset(tmp_path, POOL, errors={3: "no image", 7: "no"}, name="bootstrap", **stored)
    config = NclScorer(of="bootstrap", batch=30, rounds=2, seed=5)
    folder = Path(data.path, "_artifacts", "ncl", ncl.fit(data, config))
    found, codes = load_spaces(folder), own.pairs().codes
    assert {fold: sets.codes.shape for fold, sets in found.items()} == {
        0: (2, 30, 2),
        1: (1, 20, 2),
    }
    for fold, sets in found.items():
        rows = [r for r in range(60) if folds[r] == fold and r != 3]
        for which in range(len(sets.codes)):
            order = sorted(rows, key=lambda row: draw(5, f"reference {which} {POOL.uids[row]}"))
            chosen = order[:30]
            assert np.array_equal(sets.images[which], own.images[chosen])
            assert np.array_equal(sets.texts[which], own.texts[chosen])
            assert np.array_equal(sets.codes[which], codes[chosen])
    assert sorted(p.name for p in folder.iterdir()) == ["_done", "fold_00", "fold_01"]


def test_one_space_has_its_files_and_no_folds(tmp_path: Path):
    """As an artifact always was."""
    data = dataset(tmp_path, POOL)
    folder = Path(data.path, "_artifacts", "ncl", ncl.fit(data, CONFIG))
    files = ["_done", "codes.npy", "images.npy", "texts.npy"]
    assert sorted(p.name for p in folder.iterdir()) == files


def test_folds_without_own_embeddings_are_refused(tmp_path: Path):
    """A fold's pairs cannot be compared in another's space: the columns, and what to ask for."""
    data = dataset(tmp_path, POOL, name="bootstrap", fold=[0] * 60)
    message = r"scores_bootstrap .* has no own_image_emb, own_text_emb: let 'bootstrap' have"
    with pytest.raises(ValueError, match=message):
        ncl.fit(data, NclScorer(of="bootstrap"))


def test_the_key_is_of_the_pool_the_config_and_the_space(tmp_path: Path):
    """It begins with what made the embeddings; another seed or another pool is another artifact."""
    data = dataset(tmp_path, POOL, lambda uid: 0)
    key = ncl.fit(data, CONFIG)
    assert ncl.fit(data, CONFIG) == key
    reseeded = ncl.fit(data, CONFIG.model_copy(update={"seed": 6}))
    grown = ncl.fit(dataset(tmp_path, embedded(9, seed=1), lambda uid: 1), CONFIG)
    assert len({key, reseeded, grown}) == 3
    assert len({k.split("-")[0] for k in (key, reseeded, grown)}) == 1


def test_a_pool_without_an_embedding_is_refused(tmp_path: Path):
    """With the table and the folder."""
    data = dataset(tmp_path, POOL, errors=dict.fromkeys(range(60), "no image"))
    with pytest.raises(ValueError, match=r"scores_clip of .* has no pair with embeddings"):
        ncl.fit(data, CONFIG)
