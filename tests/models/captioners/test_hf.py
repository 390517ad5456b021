import numpy as np
import pytest
import torch

import models
from models.captioners.sampling import GumbelSampling, seed_of
from schemas.configs import HfCaptioner
from tests.blip import WORDS, tiny_blip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture
def captioner(folder):
    def of(**knobs):
        knobs = {"max_new_tokens": 5, "num_captions": 2, "top_p": 1.0, "batch_size": 4} | knobs
        return models.captioner(HfCaptioner(model=str(folder), **knobs))

    return of


@pytest.fixture
def batch(batch_of, noise):
    return batch_of(["x"] * 5, [noise(i, 40 + i, 30, 3 + i % 2) for i in range(5)])


def test_each_image_gets_its_captions(captioner, batch):
    """`num_captions` captions of known words per image, and no errors."""
    captions, errors = captioner()(batch)
    assert errors == [None] * 5
    assert [len(found) for found in captions] == [2] * 5
    assert {word for found in captions for text in found for word in text.split()} <= set(WORDS)


def test_samples_do_not_depend_on_the_batch(captioner, batch, take):
    """Another order, another batch size and images left out change no caption."""
    whole, _ = captioner(batch_size=16)(batch)
    assert len({text for found in whole for text in found}) > 3
    order = [3, 0, 4]
    some, _ = captioner(batch_size=1)(take(batch, order))
    assert some == [whole[row] for row in order]


def test_more_captions_keep_the_first(captioner, batch):
    """The first of five captions are those of two."""
    two, five = captioner()(batch)[0], captioner(num_captions=5)(batch)[0]
    assert [found[:2] for found in five] == two


def test_captions_come_from_the_image(captioner, batch_of, noise):
    """Without chance, other pixels give other words; the caption at hand gives none."""
    images = [noise(i) for i in range(8)]
    greedy = captioner(top_p=None, num_beams=1, num_captions=1)
    captions, _ = greedy(batch_of(["x"] * 8, images))
    assert len({found[0] for found in captions}) > 1
    assert greedy(batch_of(["y"] * 8, images))[0] == captions


def test_another_seed_draws_other_captions(captioner, batch):
    """The seed decides what is sampled, and nothing else does."""
    torch.manual_seed(1)
    first = captioner()(batch)
    torch.manual_seed(2)
    assert captioner()(batch) == first
    assert captioner(seed=1)(batch)[0] != first[0]


def test_beams_do_not_depend_on_the_batch(captioner, batch, take):
    """Beam search gives the best `num_captions` of `num_beams`, the same alone as together."""
    knobs = {"top_p": None, "num_beams": 3}
    whole, _ = captioner(**knobs)(batch)
    alone, _ = captioner(**knobs)(take(batch, [2]))
    assert alone == [whole[2]]
    assert len(whole[0]) == 2


def test_the_prompt_is_not_part_of_the_caption(captioner, batch):
    """What the model was given to continue is cut off."""
    captions, errors = captioner(prompt="A picture of")(batch)
    assert errors == [None] * 5
    assert not any(text.startswith("a picture of") for found in captions for text in found)


def test_no_image_is_an_error_and_costs_no_other(captioner, batch_of, noise):
    """A missing image and an impossible one have their reasons; the rest is captioned."""
    images = [None, noise(0), np.zeros((0, 4, 3), np.uint8), noise(1, 1, 1)]
    captions, errors = captioner()(batch_of([None] * 4, images))
    assert errors[0] == "undecodable image"
    assert errors[2].startswith("image not prepared: ")
    assert [found is None for found in captions] == [True, False, True, False]
    assert [errors[1], errors[3]] == [None, None]


def test_an_empty_batch_has_no_captions(captioner, batch_of):
    """No rows in, no rows out."""
    assert captioner()(batch_of([], [])) == ([], [])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"top_p": 0.9, "num_beams": 3}, "top_p 0.9 samples and num_beams 3 searches"),
        ({"top_p": None, "num_captions": 3, "num_beams": 2}, "3 captions of 2 beams"),
    ],
)
def test_contradicting_knobs_are_refused(captioner, knobs, message):
    """Sampling with beams, and more captions than beams, say what to set."""
    with pytest.raises(ValueError, match=message):
        captioner(**knobs)


def test_gumbel_sampling_draws_from_the_nucleus():
    """Frequencies of the arg max are the nucleus' probabilities; words outside never come."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = 4000
    sampling = GumbelSampling([seed_of(0, str(i), 0) for i in range(draws)], top_p=0.9)
    scores = sampling(torch.zeros(draws, 1, dtype=torch.long), p.log().expand(draws, -1))
    seen = torch.bincount(scores.argmax(dim=1), minlength=4) / draws
    expected = torch.tensor([0.5, 0.3, 0.15, 0]) / 0.95
    assert (seen - expected).abs().max() < 0.03
    assert seen[3] == 0


def test_seeds_depend_on_seed_pair_and_index():
    """Each of the three gives another stream; all fit a signed 64-bit number."""
    seeds = {seed_of(s, u, i) for s in range(3) for u in ("a", "b") for i in range(3)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
