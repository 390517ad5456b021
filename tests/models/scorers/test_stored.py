"""stored: a batch's pairs compared with others, within their fold where there are folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contrast import Pairs, References, load_spaces, save_spaces
from models.scorers.stored import ALONE, load_references, losses
from tests.embedded import Embedded, batch_of, embedded, of_own_folds, plain_losses, seen, turned

TAU = 0.07


def spaces_of(pool: Embedded, sets: dict[int, list[list[int]]]) -> dict[int, References]:
    """Reference sets by fold, of the pairs of these rows."""
    pairs: Pairs = pool.pairs()
    sides = (pairs.images, pairs.texts, pairs.codes)
    return {
        fold: References(*(side[np.array(some)] for side in sides)) for fold, some in sets.items()
    }


def crossfitted(pool: Embedded, own: Embedded, folds: list[int]):
    """A batch whose common embeddings are the pool's, and whose own ones are these."""
    return batch_of(pool, **of_own_folds(own, folds))


def found_of(batch, spaces: dict[int, References]):
    """Its losses; every error is a failure."""
    found, errors = losses(batch, spaces, TAU, "noise", "bootstrap")
    assert errors == [None] * len(batch)
    return np.array(found, float)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 4), signal=st.floats(0.3, 1.5))
def test_losses_are_the_plain_ones_of_each_fold(seed: int, folds: int, signal: float):
    """To 1e-5 by loops over the pairs of a fold, in spaces that are turned against each other, and
    with a caption that several pairs share."""
    pool, rng = embedded(48, signal, 0.3, seed), np.random.default_rng(seed)
    pool.captions[:4] = ["a photo"] * 4
    which = rng.integers(0, folds, 48).tolist()
    which[4 : 4 + 2 * folds] = [*range(folds)] * 2
    own = turned(pool, which, seed)
    rows = {fold: np.flatnonzero(np.equal(which, fold)).tolist() for fold in range(folds)}
    sets = {
        fold: [rng.permutation(some)[: max(2, len(some) // 2)].tolist() for _ in range(2)]
        for fold, some in rows.items()
    }
    found = losses(crossfitted(pool, own, which), spaces_of(own, sets), TAU, "noise", "bootstrap")[
        0
    ]
    for fold, some in rows.items():
        for row in some:
            mine = np.mean([plain_losses(own, [row], others, TAU) for others in sets[fold]])
            loss = np.nan if found[row] is None else found[row]
            assert loss == pytest.approx(mine, abs=1e-5, nan_ok=True)


def test_another_space_tells_nothing():
    """Losses of turned folds are what they are unturned, whatever the common space says; against
    the pairs of another fold they would be garbage."""
    pool, folds = embedded(60, planted=0.2), [i % 2 for i in range(60)]
    rows = {fold: [[i for i in range(60) if i % 2 == fold]] for fold in (0, 1)}
    own = turned(pool, folds)
    found = found_of(crossfitted(seen(own), own, folds), spaces_of(own, rows))
    same = found_of(crossfitted(pool, pool, folds), spaces_of(pool, rows))
    assert found == pytest.approx(same, abs=0.05)
    swapped = {0: rows[1], 1: rows[0]}
    across = found_of(crossfitted(pool, own, folds), spaces_of(own, swapped))
    assert np.abs(across - same).mean() > 0.3


def test_order_and_batches_change_no_loss(take):
    """Pairs of all folds mixed, alone or reversed: the same to 1e-5."""
    pool, folds = embedded(60, planted=0.3), [i % 3 for i in range(60)]
    own = turned(pool, folds)
    batch = crossfitted(pool, own, folds)
    spaces = spaces_of(own, {f: [[i for i in range(60) if i % 3 == f]] for f in range(3)})
    found, back = found_of(batch, spaces), list(range(60))[::-1]
    assert found_of(take(batch, back), spaces) == pytest.approx(found[back], abs=1e-5)
    pieces = [found_of(take(batch, [i, i + 1]), spaces) for i in range(0, 60, 2)]
    assert np.concatenate(pieces) == pytest.approx(found, abs=1e-5)


def test_a_pair_whose_fold_is_unknown_or_new_has_an_error():
    """Never a loss of another fold's: the bootstrap's reason, or that there is none to compare."""
    pool, folds = embedded(6), [0, 0, 0, 0, 0, 2]
    batch = crossfitted(pool, pool, folds)
    for column in ("fold", "clip_score", "own_image_emb", "own_text_emb"):
        batch.columns[column][1] = None
    batch.image_errors[1] = "no fold"
    spaces = spaces_of(pool, {0: [[0, 2, 3, 4]]})
    found, errors = losses(batch, spaces, TAU, "noise", "bootstrap")
    assert errors == [None, "not scored by bootstrap: no fold", None, None, None, ALONE]
    assert [loss is None for loss in found] == [error is not None for error in errors]


def test_sets_are_read_by_their_fold(tmp_path: Path):
    """What was saved, in the order of the folds, eleven included; without folds, 0 has them."""
    pool = embedded(24)
    spaces = spaces_of(pool, {fold: [[2 * fold, 2 * fold + 1]] for fold in range(12)})
    save_spaces(spaces, tmp_path / "many")
    found = load_spaces(tmp_path / "many")
    assert list(found) == list(range(12))
    for fold, references in spaces.items():
        for name, array in vars(references).items():
            assert np.array_equal(getattr(found[fold], name), array)
    spaces[3].save(tmp_path / "one")
    alone = load_references(tmp_path / "one", "ncl")
    assert list(alone) == [0]
    assert np.array_equal(alone[0].codes, spaces[3].codes)
