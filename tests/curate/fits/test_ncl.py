"""Reference batches: drawn by hash, gathered from the parts, the same however the pool lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.fits import ncl
from models.contrast import References
from schemas.configs import NclScorer
from schemas.tables import draw
from tests.embedded import dataset, embedded

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
