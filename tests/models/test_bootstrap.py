import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.bootstrap import (
    embed_images,
    embed_tokens,
    fold_of,
    learning_rate,
    load_folds,
    to_small,
    train_fold,
    vocabulary_of,
)
from models.vocabulary import Vocabulary
from schemas.configs import BootstrapScorer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 230), "white": (240,) * 3}
TINY = BootstrapScorer(
    steps=40,
    train_batch_size=16,
    lr=3e-3,
    warmup=5,
    context_length=5,
    image_size=16,
    patch_size=8,
    width=32,
    layers=1,
    text_width=32,
    text_layers=1,
    embed_dim=16,
)


def coloured(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """n noisy one-colour images and their captions."""
    draw = np.random.default_rng(seed)
    names = draw.choice(list(COLOURS), n)
    noise = draw.integers(-25, 26, (n, 16, 16, 3))
    images = np.array([COLOURS[name] for name in names])[:, None, None] + noise
    return images.clip(0, 255).astype(np.uint8), [f"a {name} square" for name in names]


@pytest.fixture(scope="module")
def trained():
    images, captions = coloured(64, 0)
    vocabulary = Vocabulary.learn(captions, 20)
    return train_fold(images, captions, TINY, vocabulary, seed=0), vocabulary


def test_training_learns_what_images_show(trained, tmp_path):
    """New images are closer to their own colour's caption than to any other, nearly always."""
    state, vocabulary = trained
    vocabulary.save(vocabulary_of(tmp_path))
    for fold in range(2):
        save_file(state, fold_of(tmp_path, fold))
    (model, _), loaded = load_folds(tmp_path, TINY)
    images, captions = coloured(40, 1)
    texts = [f"a {name} square" for name in COLOURS]
    text_emb = embed_tokens(model, loaded.encode(texts, TINY.context_length), 3)
    nearest = (embed_images(model, images, 7) @ text_emb.T).argmax(axis=1)
    assert (
        np.mean([texts[i] == caption for i, caption in zip(nearest, captions, strict=True)]) > 0.9
    )


def test_training_is_the_same_twice(trained):
    """Equal arguments give equal bits, whatever was drawn from torch before."""
    state, vocabulary = trained
    torch.rand(7)
    images, captions = coloured(64, 0)
    again = train_fold(images, captions, TINY, vocabulary, seed=0)
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_training_leaves_torch_as_it_was():
    """The thread count and the random state are those of before, after an error too."""
    images, captions = coloured(8, 0)
    vocabulary = Vocabulary.learn(captions, 20)
    threads, drawn = torch.get_num_threads(), torch.random.get_rng_state()

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(images, captions, TINY, vocabulary, seed=0, progress=stop)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_equal_captions_and_images_are_no_negatives():
    """With one caption for all, or one image for all, there is nothing to tell apart: loss 0."""
    images, captions = coloured(8, 0)
    losses: list[float] = []
    config = TINY.model_copy(update={"steps": 2})
    vocabulary = Vocabulary.learn(captions, 20)

    def note(step: int, loss: float) -> None:
        losses.append(loss)

    train_fold(images, ["A red square!", "a RED square"] * 4, config, vocabulary, 0, progress=note)
    train_fold(images, captions, config, vocabulary, 0, np.zeros(8, np.int64), note)
    assert losses == pytest.approx([0, 0, 0, 0])
    train_fold(images, captions, config, vocabulary, 0, progress=note)
    assert losses[-1] > 0.1


def test_progress_counts_every_step():
    """Steps are told from 1 to `steps`, however small the pool."""
    images, captions = coloured(3, 0)
    steps: list[int] = []
    config = TINY.model_copy(update={"steps": 4})
    train_fold(
        images,
        captions,
        config,
        Vocabulary.learn(captions, 9),
        0,
        progress=lambda s, _: steps.append(s),
    )
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize(("n", "size"), [(1, 16), (0, 16), (4, 8)])
def test_what_cannot_be_trained_on_is_refused(n, size):
    """Fewer than two pairs or images of another size are an error that says both shapes."""
    with pytest.raises(ValueError, match=rf"images are \({n}, {size}, {size}, 3\), needed"):
        train_fold(np.zeros((n, size, size, 3), np.uint8), ["a"] * n, TINY, Vocabulary(["a"]), 0)


def test_a_missing_fold_is_named(trained, tmp_path):
    """Loading an artifact without one of its models names the file."""
    state, vocabulary = trained
    vocabulary.save(vocabulary_of(tmp_path))
    save_file(state, fold_of(tmp_path, 0))
    with pytest.raises(ValueError, match=r"fold_01\.safetensors: no model of this config .*fit"):
        load_folds(tmp_path, TINY)


def test_a_model_of_another_size_is_named(trained, tmp_path):
    """Loading weights that do not fit the config names the file."""
    state, vocabulary = trained
    vocabulary.save(vocabulary_of(tmp_path))
    save_file(state, fold_of(tmp_path, 0))
    with pytest.raises(ValueError, match=r"fold_00\.safetensors: no model of this config"):
        load_folds(tmp_path, TINY.model_copy(update={"width": 64}))


@given(st.integers(1, 500), st.integers(0, 600))
def test_the_rate_rises_then_falls_to_near_zero(steps, warmup):
    """The learning rate never leaves (0, lr] and is highest at the end of the warm-up."""
    config = BootstrapScorer(steps=steps, warmup=warmup)
    rates = [learning_rate(step, config) for step in range(steps)]
    assert all(0 < rate <= config.lr for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 999, 4), (300, 200, 3), (16, 16, 4)])
def test_small_images_have_one_shape(shape):
    """Any image becomes (size, size, 3) uint8; clear pixels are white."""
    small = to_small(np.zeros(shape, np.uint8), 16)
    assert small.shape == (16, 16, 3)
    assert small.dtype == np.uint8
    assert (small == (255 if shape[2] == 4 else 0)).all()


def test_small_images_are_area_means():
    """Shrinking by a whole factor gives the mean of each block."""
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    means = image.reshape(16, 2, 16, 3, 3).mean(axis=(1, 3))
    assert np.abs(to_small(image, 16) - means).max() <= 1
