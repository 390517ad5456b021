"""contrast: the loss of a pair among others, and who is no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import contrast
from models.contrast import Pairs, References, codes_of, contrastive_loss
from tests.embedded import Embedded, embedded, unit, whole

TAU = 0.07


def plain(images, texts, temperature: float = TAU):
    """The symmetric loss of CLIP, per row: -log softmax of the diagonal, of rows and of columns."""
    logits = images.astype(float) @ texts.astype(float).T / temperature
    both = (logits, logits.T)
    losses = [np.log(np.exp(one).sum(axis=1)) - np.diag(one) for one in both]
    return (losses[0] + losses[1]) / 2


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_one_batch_gives_the_symmetric_loss_of_clip(temperature: float):
    """Against the batch that the pairs are of: the plain reference."""
    pool = embedded(300, planted=0.2)
    found = contrastive_loss(pool.pairs(), whole(pool), temperature)
    assert found == pytest.approx(plain(pool.images, pool.texts, temperature), abs=1e-4)


def test_several_sets_give_the_mean(monkeypatch):
    """Of two sets, one of which has the pairs and one has not: the mean of both; a pair that is no
    member counts itself in, and the others as one pair less."""
    pool, other = embedded(50), embedded(50, seed=1)
    sets = [whole(pool), References(other.images[None], other.texts[None], whole(pool).codes + 1)]
    sides = zip(*(vars(s).values() for s in sets), strict=True)
    both = References(*(np.concatenate(side) for side in sides))
    found = contrastive_loss(pool.pairs(), both, TAU)
    expected = []
    for v, t in zip(pool.images.astype(float), pool.texts.astype(float), strict=True):
        sides = [
            np.exp(others.astype(float) @ mine / TAU).mean() * 49
            for mine, others in ((v, other.texts), (t, other.images))
        ]
        own = v @ t / TAU
        expected.append(sum(np.log(np.exp(own) + s) for s in sides) / 2 - own)
    alone = plain(pool.images, pool.texts)
    assert found == pytest.approx((alone + np.array(expected)) / 2, abs=1e-4)


@pytest.mark.parametrize("cells", [1, 50, 1000])
def test_neither_order_nor_blocks_change_a_loss(cells: int, monkeypatch):
    """The same to 1e-5, whatever is computed together."""
    pool = embedded(120, planted=0.3)
    before = contrastive_loss(pool.pairs(), whole(pool), TAU)
    order = np.random.default_rng(1).permutation(120)
    monkeypatch.setattr(contrast, "CELLS", cells)
    shuffled = contrastive_loss(pool.take(order.tolist()).pairs(), whole(pool), TAU)
    assert shuffled == pytest.approx(before[order], abs=1e-5)
    members = contrastive_loss(pool.pairs(), whole(pool.take(order.tolist())), TAU)
    assert members == pytest.approx(before, abs=1e-5)


def test_constant_embeddings_tell_nothing():
    """A model that sees the same in everything gives every pair log(B)."""
    same = np.ones((64, 16))
    pool = Embedded(unit(same), unit(same), *_names(64), np.zeros(64, bool))
    losses = contrastive_loss(pool.pairs(), whole(pool), TAU)
    assert losses == pytest.approx(np.full(64, np.log(64)), abs=1e-5)


def test_shuffled_images_change_every_loss():
    """Another image for every caption: no loss stays."""
    pool = embedded(100)
    turned = Pairs(np.roll(pool.images, 1, axis=0), *list(vars(pool.pairs()).values())[1:])
    turned = Pairs(turned.images, turned.texts, _cosines(turned), turned.codes)
    moved = contrastive_loss(turned, whole(pool), TAU) - contrastive_loss(
        pool.pairs(), whole(pool), TAU
    )
    assert np.abs(moved).min() > 1e-3
    assert moved.mean() > 1


@pytest.mark.parametrize("what", ["captions", "hashes"])
def test_what_shares_the_image_or_the_caption_is_no_negative(what: str):
    """Copies of a pair in the set leave its loss as it is: neither the pair twice, nor its caption
    on another picture or its picture under another caption."""
    pool = embedded(60)
    before = contrastive_loss(pool.pairs(), whole(pool), TAU)
    values = list(getattr(pool, what))
    values[1] = values[0]
    copied = Embedded(**(vars(pool) | {what: values}))
    after = contrastive_loss(copied.pairs(), whole(copied), TAU)
    keep = [0, *range(2, 60)]
    without = contrastive_loss(pool.pairs(), whole(pool.take(keep)), TAU)
    expected = _weighed(copied, 0, 1)
    assert after[0] == pytest.approx(expected, abs=1e-4)
    assert after[2:] == pytest.approx(before[2:], abs=1e-5)
    assert abs(after[0] - without[0]) < 0.05


def _weighed(pool: Embedded, row: int, left_out: int) -> float:
    """The loss of a row by hand, one other left out and the rest weighing as much as all."""
    v, t = pool.images[row].astype(float), pool.texts[row].astype(float)
    others = [i for i in range(len(pool)) if i not in (row, left_out)]
    own, n = v @ t / TAU, len(pool)
    sides = [
        np.exp(side[others].astype(float) @ mine / TAU).mean() * (n - 1)
        for mine, side in ((v, pool.texts), (t, pool.images))
    ]
    return float(sum(np.log(np.exp(own) + s) for s in sides) / 2 - own)


def test_of_a_wrong_pair_the_right_partners_are_negatives():
    """Images with the next pair's caption: the plain loss of that one, against all captions but its
    own and all images but its own."""
    pool = embedded(60)
    logits = pool.images.astype(float) @ pool.texts.astype(float).T / TAU
    codes = pool.pairs().codes
    texts = np.roll(pool.texts, -1, axis=0)
    turned = Pairs(
        pool.images,
        texts,
        np.roll(logits, -1, axis=1).diagonal().astype(np.float32) * TAU,
        np.stack([codes[:, 0], np.roll(codes[:, 1], -1)], axis=1),
    )
    own = np.roll(logits, -1, axis=1).diagonal()
    sides = np.log(np.exp(logits).sum(axis=1)), np.roll(np.log(np.exp(logits).sum(axis=0)), -1)
    found = contrastive_loss(turned, whole(pool), TAU, mismatched=True)
    assert found == pytest.approx(sum(sides) / 2 - own, abs=1e-4)
    assert (found >= contrastive_loss(turned, whole(pool), TAU)).all()


def test_nothing_to_compare_with_is_no_number():
    """A pool of one pair, or of one caption: NaN, not the best of scores."""
    one = embedded(1)
    assert np.isnan(contrastive_loss(one.pairs(), whole(one), TAU)).all()
    pool = embedded(20)
    same = Embedded(**(vars(pool) | {"captions": ["a photo"] * 20}))
    assert np.isnan(contrastive_loss(same.pairs(), whole(same), TAU)).all()


def test_codes_know_copies_by_their_text_and_bytes():
    """Case and outer blanks aside; without a hash an image is only itself."""
    captions = ["A dog", " a DOG\n", "a cat", None, "", "\ud800"]
    codes = codes_of([str(i) for i in range(6)], ["x", "x", None, None, "y", "y"], captions)
    assert codes.shape == (6, 2)
    assert codes.dtype == np.int64
    assert (codes[:, 0][:, None] == codes[:, 0]).sum(axis=1).tolist() == [2, 2, 1, 1, 2, 2]
    assert (codes[:, 1][:, None] == codes[:, 1]).sum(axis=1).tolist() == [2, 2, 1, 2, 2, 1]


def test_references_are_read_from_their_files(tmp_path: Path):
    """What was saved, mapped and not copied."""
    sets = whole(embedded(8))
    for name in ("images", "texts", "codes"):
        np.save(tmp_path / f"{name}.npy", getattr(sets, name))
    found = References.load(tmp_path)
    assert isinstance(found.images, np.memmap)
    for name in ("images", "texts", "codes"):
        assert np.array_equal(getattr(found, name), getattr(sets, name))


def _names(n: int) -> tuple[list[str], list[str]]:
    return [f"{i:064x}" for i in range(n)], [f"caption {i}" for i in range(n)]


def _cosines(pairs: Pairs):
    return np.sum(pairs.images.astype(np.float32) * pairs.texts.astype(np.float32), axis=1)
