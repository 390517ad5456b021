import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import models
from models.codebook import CodebookModel, model_of, vocabulary_of
from models.vocabulary import Vocabulary
from tests.shapes import TINY

WORDS = ["a", "red", "blue", "disc", "square", "left", "right", "on", "two", "tall"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An untrained model whose captions depend on the image."""
    folder = tmp_path_factory.mktemp("artifact")
    vocabulary = Vocabulary(WORDS)
    vocabulary.save(vocabulary_of(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CodebookModel(TINY, vocabulary)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    with torch.no_grad():
        for _ in range(50):  # the means that patches are spread by
            patches = model.train().patches(images)
        model.quantiser.start(patches.flatten(0, 1)[:: 256 // TINY.codes])
        for block in model.decoder.blocks:
            block.cross.out.weight.mul_(8)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, model_of(folder))
    return folder


@pytest.fixture
def captioner(artifact):
    def of(**knobs):
        knobs = {"top_p": 1.0, "num_captions": 2, "batch_size": 4, "repetition_penalty": 9} | knobs
        return models.captioner(TINY.model_copy(update=knobs), artifact)

    return of


@pytest.fixture
def batch(batch_of, noise):
    return batch_of(["x"] * 9, [noise(i, 40 + i, 30, 3 + i % 2) for i in range(9)])


def test_each_image_gets_its_captions(captioner, batch):
    """`num_captions` captions of known words per image, and no errors."""
    captions, errors = captioner()(batch)
    assert errors == [None] * 9
    assert [len(found) for found in captions] == [2] * 9
    assert {word for found in captions for text in found for word in text.split()} <= set(WORDS)


@pytest.mark.parametrize("top_p", [None, 0.9])
def test_captions_do_not_depend_on_the_batch(captioner, batch, take, top_p):
    """Another order, another batch size and images left out change no caption and no code."""
    knobs = {"top_p": top_p, "num_captions": 2 if top_p else 1}
    one = captioner(**knobs, batch_size=16)
    whole, codes = one(batch)[0], one.codes(batch)
    assert len({text for found in whole for text in found}) > 3
    order = [3, 0, 8, 4]
    other = captioner(**knobs, batch_size=1)
    assert other(take(batch, order))[0] == [whole[row] for row in order]
    assert other.codes(take(batch, order)) == [codes[row] for row in order]


def test_more_captions_keep_the_first(captioner, batch):
    """The first of five captions are those of two."""
    two, five = captioner()(batch)[0], captioner(num_captions=5)(batch)[0]
    assert [found[:2] for found in five] == two
    assert any(len(set(found)) > 1 for found in five)


def test_the_seed_decides_what_is_sampled(captioner, batch):
    """The same one says the same, another one does not; the likeliest words need none."""
    assert captioner()(batch) == captioner()(batch)
    assert captioner(seed=1)(batch) != captioner()(batch)
    greedy = {"top_p": None, "num_captions": 1}
    assert captioner(seed=1, **greedy)(batch) == captioner(**greedy)(batch)


def test_an_image_is_captioned_by_its_codes(captioner, batch_of, noise):
    """Images with the same codes have the same likeliest caption; others have others."""
    images = [noise(i) for i in range(30)]
    greedy = captioner(top_p=None, num_captions=1)
    batch = batch_of(["x"] * 60, images + images[::-1])
    told: dict[tuple[int, ...], set[str]] = {}
    for codes, (caption,) in zip(greedy.codes(batch), greedy(batch)[0], strict=True):
        told.setdefault(tuple(codes), set()).add(caption)
    assert {len(found) for found in told.values()} == {1}
    assert len({text for found in told.values() for text in found}) > 1


def test_codes_are_of_the_codebook(captioner, batch):
    """One per patch, from 0 to K - 1, several of them."""
    codes = captioner().codes(batch)
    assert {len(own) for own in codes} == {4}
    assert {code for own in codes for code in own} <= set(range(TINY.codes))
    assert len({tuple(own) for own in codes}) > 2
    assert captioner().model.codes(np.zeros((1, 16, 16, 3), np.uint8)).dtype == np.int16


def test_hostile_images_cost_themselves(captioner, batch_of, noise):
    """One pixel, one row, one column, clear all over; what cannot be decoded keeps its reason."""
    images = [
        np.zeros((1, 1, 3), np.uint8),
        noise(0, 1, 5000, 3),
        noise(1, 5000, 1, 4),
        None,
        np.zeros((40, 40, 4), np.uint8),
    ]
    found = captioner()
    captions, errors = found(batch_of(["x"] * 5, images))
    assert errors == [None, None, None, "undecodable image", None]
    assert [None if c is None else len(c) for c in captions] == [2, 2, 2, None, 2]
    codes = found.codes(batch_of(["x"] * 5, images))
    assert [c is None for c in codes] == [False, False, False, True, False]


def test_a_batch_without_images_is_no_error(captioner, batch_of):
    """Nothing in, nothing out."""
    assert captioner()(batch_of([], [])) == ([], [])
    assert captioner().codes(batch_of([None], [None])) == [None]


def test_threads_are_restored(captioner, batch):
    """The captioner's own number of threads ends with its call."""
    before = torch.get_num_threads()
    captioner(threads=before + 1)(batch)
    assert torch.get_num_threads() == before


def test_a_captioner_needs_its_artifact():
    """Without a trained model the error says what to do first."""
    with pytest.raises(ValueError, match="is trained on a pool first"):
        models.captioner(TINY)


def test_a_model_of_another_config_is_refused(artifact, tmp_path):
    """More codes, or a file that is no model: the error names it."""
    with pytest.raises(ValueError, match=r"model\.safetensors: no model of this config"):
        models.captioner(TINY.model_copy(update={"codes": 9}), artifact)
    Vocabulary(WORDS).save(vocabulary_of(tmp_path))
    with pytest.raises(ValueError, match="fit captioner codebook again"):
        models.captioner(TINY, tmp_path)
    model_of(tmp_path).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no model of this config"):
        models.captioner(TINY, tmp_path)
