"""Every per-sample scorer: a pair's numbers are its own, whatever stands beside it."""

import json
from itertools import pairwise

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import models
from models.base import Batch
from schemas.configs import ClipScorer, ImageStatsScorer, TextStatsScorer, TmarsScorer
from tests.models.conftest import make_batch
from tests.stored import TINY_CLIP

CAPTIONS = [
    *("a red dog", "two cats", "a red dog", "a tree on a hill", "IMG_2031.jpg", ""),
    *("רכב אדום", "🙂🙂", "a long caption, " * 30, "see www.example.org", "zwei Hunde", "x"),
]
SIZES = [(40, 50), (1, 1), (64, 64), (300, 20), (33, 90), (224, 224)]
WHOLE = range(len(CAPTIONS))


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    """Each kind that needs no fitting on a pool's pixels."""
    path = tmp_path_factory.mktemp("tiny")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**TINY_CLIP).state_dict(), path / "open_clip_model.safetensors")
    configs = (
        *(ClipScorer(model=str(path), batch_size=4), TmarsScorer(model=str(path), batch_size=4)),
        *(ImageStatsScorer(), TextStatsScorer()),
    )
    return {config.kind: models.scorer(config) for config in configs}


def image(number: int) -> np.ndarray:
    height, width = SIZES[number % len(SIZES)]
    random = np.random.default_rng(number)
    return random.integers(0, 256, (height, width, 3 + number % 2), np.uint8)


def batch_of(captions, images) -> Batch:
    counts = {f"text_stats__{n}": [1] * len(captions) for n in COUNTS}
    return make_batch(captions, images, **counts)


COUNTS = ("images_per_caption", "captions_per_image")
IMAGES = [None if n == 3 else image(n) for n in WHOLE]


@pytest.fixture(scope="module")
def alone(scorers):
    """By kind: each pair's columns, scored in a batch of its own."""
    return {
        kind: [scorer(batch_of([CAPTIONS[n]], [IMAGES[n]])) for n in WHOLE]
        for kind, scorer in scorers.items()
    }


def same(value, expected) -> bool:
    """Equal; numbers of a model to 1e-5, float16 vectors to their last bit or so."""
    if isinstance(expected, np.ndarray):
        return bool(np.allclose(value, expected, atol=1e-3, equal_nan=True))
    if isinstance(expected, float):
        return value == pytest.approx(expected, abs=1e-5, rel=1e-5)
    return value == expected


@pytest.mark.parametrize("kind", ["clip", "tmars", "image_stats", "text_stats"])
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(list(WHOLE)), cuts=st.sets(st.integers(1, len(CAPTIONS) - 1)))
def test_order_and_batches_change_nothing(scorers, alone, kind: str, order, cuts):
    """Any order, cut into any batches, gives each pair what it gets alone."""
    bounds = [0, *sorted(cuts), len(order)]
    for begin, end in pairwise(bounds):
        rows = order[begin:end]
        columns = scorers[kind](batch_of([CAPTIONS[r] for r in rows], [IMAGES[r] for r in rows]))
        for at, row in enumerate(rows):
            for name, expected in alone[kind][row].items():
                assert same(columns[name][at], expected[0]), (name, row)


def test_other_captions_change_no_image_embedding_and_no_image_score(scorers):
    """What the image's columns say is of the image alone."""
    images = [image(n) for n in WHOLE]
    first = batch_of([f"caption {n}" for n in WHOLE], images)
    second = batch_of([f"nothing like it, {n * 7}" for n in WHOLE], images)
    assert scorers["image_stats"](first) == scorers["image_stats"](second)
    one, other = scorers["clip"](first), scorers["clip"](second)
    assert np.array_equal(one["image_emb"], other["image_emb"])
    assert np.abs(one["text_emb"] - other["text_emb"]).max(axis=1).min() > 1e-3


def test_other_images_change_every_alignment_score_and_no_caption_score(scorers):
    """A turn of the images by one moves each cosine; what is said of captions stays."""
    captions = [f"caption {n}" for n in WHOLE]
    images = [image(n) for n in WHOLE]
    first, second = batch_of(captions, images), batch_of(captions, images[1:] + images[:1])
    assert scorers["text_stats"](first) == scorers["text_stats"](second)
    one, other = scorers["clip"](first), scorers["clip"](second)
    assert np.array_equal(one["text_emb"], other["text_emb"])
    moved = np.abs(np.subtract(one["clip_score"], other["clip_score"]))
    assert moved.min() > 1e-5
