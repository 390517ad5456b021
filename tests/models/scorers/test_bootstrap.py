import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.bootstrap import build, embed_images, embed_tokens, fold_of, to_small, vocabulary_of
from models.scorers.bootstrap import NO_FOLD, Bootstrap
from models.vocabulary import Vocabulary
from schemas.configs import BootstrapScorer

CONFIG = BootstrapScorer(
    folds=3,
    context_length=6,
    image_size=16,
    patch_size=8,
    width=32,
    layers=1,
    text_width=32,
    text_layers=1,
    embed_dim=16,
    batch_size=4,
)
CAPTIONS = ["red square", "blue dot", "red dot", "square", "zebra", "red square", "a b c d e f g"]
FOLDS = [0, 1, 2, 0, 1, 2, 1]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Three untrained models: what is tested is who scores whom."""
    folder = tmp_path_factory.mktemp("artifact")
    vocabulary = Vocabulary.learn(CAPTIONS, 50)
    vocabulary.save(vocabulary_of(folder))
    for fold in range(CONFIG.folds):
        torch.manual_seed(fold)
        save_file(build(CONFIG, vocabulary.size).state_dict(), fold_of(folder, fold))
    return folder


@pytest.fixture
def scorer(artifact):
    return Bootstrap(CONFIG, artifact)


@pytest.fixture
def batch(batch_of, noise):
    images = [noise(i, 20 + i, 30, 3 + i % 2) for i in range(len(CAPTIONS))]
    return batch_of(CAPTIONS, images, bootstrap__fold=FOLDS)


def plain(scorer, image, caption, fold):
    """One pair by one fold's model, alone."""
    model = scorer.models[fold]
    tokens = scorer.vocabulary.encode([caption], CONFIG.context_length)
    return embed_images(model, to_small(image, 16)[None], 1)[0], embed_tokens(model, tokens, 1)[0]


def test_each_pair_is_scored_by_the_model_that_held_it_out(scorer, batch):
    """`clip_score` is the cosine by the pair's own fold's model, and `fold` says which."""
    columns = scorer(batch)
    assert columns["fold"] == FOLDS
    for row, fold in enumerate(FOLDS):
        image_emb, text_emb = plain(scorer, batch.images[row], CAPTIONS[row], fold)
        assert columns["clip_score"][row] == pytest.approx(image_emb @ text_emb, abs=1e-5)


def test_all_embeddings_live_in_fold_zeros_space(scorer, batch):
    """`image_emb` and `text_emb` are fold 0's for every pair, float16 and of length 1."""
    columns = scorer(batch)
    for row in range(len(batch)):
        image_emb, text_emb = plain(scorer, batch.images[row], CAPTIONS[row], 0)
        assert np.abs(columns["image_emb"][row] - image_emb).max() < 1e-3
        assert np.abs(columns["text_emb"][row] - text_emb).max() < 1e-3
    assert columns["image_emb"].dtype == np.float16
    assert np.linalg.norm(columns["image_emb"].astype(float), axis=1) == pytest.approx(1, abs=2e-3)


def test_own_embeddings_are_by_the_model_that_held_the_pair_out(scorer, batch):
    """`own_image_emb` and `own_text_emb`, float16, whose cosine is `clip_score`; of fold 0 they are
    `image_emb` and `text_emb`."""
    columns = scorer(batch)
    for row, fold in enumerate(FOLDS):
        own = [columns[name][row] for name in ("own_image_emb", "own_text_emb")]
        for found, expected in zip(
            own, plain(scorer, batch.images[row], CAPTIONS[row], fold), strict=True
        ):
            assert found.dtype == np.float16
            assert np.abs(found - expected).max() < 1e-3
        cosine = own[0].astype(float) @ own[1].astype(float)
        assert cosine == pytest.approx(columns["clip_score"][row], abs=2e-3)
        for found, name in zip(own, ("image_emb", "text_emb"), strict=True):
            assert np.array_equal(found, columns[name][row]) == (fold == 0)


def test_the_batch_changes_nothing(scorer, batch, take):
    """Any order and any split of a batch gives each pair the same score to 1e-5."""
    whole = scorer(batch)["clip_score"]
    order = [4, 0, 6, 2, 5, 1, 3]
    parts = [scorer(take(batch, rows))["clip_score"] for rows in (order[:3], order[3:])]
    assert [*parts[0], *parts[1]] == pytest.approx([whole[row] for row in order], abs=1e-5)


def test_without_embeddings_scores_are_the_same(scorer, artifact, batch):
    """`embeddings: false` leaves the four columns out and changes no score."""
    columns = Bootstrap(CONFIG.model_copy(update={"embeddings": False}), artifact)(batch)
    assert set(columns) == {"clip_score", "fold", "error"}
    assert columns["clip_score"] == pytest.approx(scorer(batch)["clip_score"], abs=1e-5)


def test_who_cannot_be_scored_says_why(scorer, batch_of, noise):
    """No image, no caption and no fold are errors of their own; the neighbour is scored."""
    batch = batch_of(
        ["a", " ", None, "red", "red", "red"],
        [None, *(noise(i) for i in range(5))],
        bootstrap__fold=[0, 0, 0, None, 7, 1],
    )
    columns = scorer(batch)
    assert columns["error"] == [
        "undecodable image", "no caption", "no caption", NO_FOLD, NO_FOLD, None,
    ]  # fmt: skip
    assert [score is None for score in columns["clip_score"]] == [True] * 5 + [False]
    assert columns["fold"] == [None] * 5 + [1]
    for name in ("image_emb", "text_emb", "own_image_emb", "own_text_emb"):
        assert np.isnan(columns[name]).all(axis=1).tolist() == [True] * 5 + [False]


def test_an_empty_batch_keeps_its_columns(scorer, batch_of):
    """No rows in: no scores, and embeddings of shape (0, d)."""
    columns = scorer(batch_of([], [], bootstrap__fold=[]))
    assert columns["clip_score"] == []
    for name in ("image_emb", "text_emb", "own_image_emb", "own_text_emb"):
        assert columns[name].shape == (0, CONFIG.embed_dim)


def test_a_batch_without_folds_is_refused(scorer, batch_of, noise):
    """The missing column is named."""
    with pytest.raises(ValueError, match="bootstrap: needs the batch column bootstrap__fold"):
        scorer(batch_of(["a"], [noise(0)]))
