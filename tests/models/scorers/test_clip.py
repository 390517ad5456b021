import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import models
from models.decode import over_white
from models.scorers.clip import Clip
from schemas.configs import ClipScorer

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
CAPTIONS = ["a red dog", "two cats", "a red dog", "a tree on a hill", "two cats", "רכב אדום 🙂"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny open_clip model as a folder, the way open_clip pushes models to a hub."""
    path = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    save_file(open_clip.CLIP(**TINY).state_dict(), path / "open_clip_model.safetensors")
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return models.scorer(ClipScorer(model=str(folder), batch_size=4))


@pytest.fixture
def batch(batch_of, noise):
    return batch_of(CAPTIONS, [noise(i, 40 + i, 50, 3 + i % 2) for i in range(len(CAPTIONS))])


def test_scores_are_open_clips(folder, scorer, batch):
    """Score and embeddings are those of open_clip used by hand, pair by pair."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    columns = scorer(batch)
    for row, (caption, image) in enumerate(zip(batch.captions, batch.images, strict=True)):
        with torch.no_grad():
            pixels = transform(Image.fromarray(over_white(image)))[None]
            image_emb = model.eval().encode_image(pixels, normalize=True)[0].numpy()
            text_emb = model.encode_text(tokenizer([caption]), normalize=True)[0].numpy()
        assert columns["clip_score"][row] == pytest.approx(image_emb @ text_emb, rel=1e-5, abs=1e-7)
        assert np.abs(columns["image_emb"][row] - image_emb).max() < 1e-3
        assert np.abs(columns["text_emb"][row] - text_emb).max() < 1e-3
    assert columns["error"] == [None] * len(batch)
    assert columns["image_emb"].dtype == columns["text_emb"].dtype == np.float16


def test_a_checkpoint_path_is_the_same_model(folder, batch, tmp_path):
    """An architecture with a .pt or .safetensors path scores as the folder does."""
    (tmp_path / "tiny-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-test.json")
    torch.manual_seed(0)
    state = open_clip.CLIP(**TINY).state_dict()
    torch.save({"state_dict": state}, tmp_path / "tiny.pt")
    save_file(state, tmp_path / "tiny.safetensors")
    expected = Clip(ClipScorer(model=str(folder)))(batch)["clip_score"]
    for name in ("tiny.pt", "tiny.safetensors"):
        config = ClipScorer(model="tiny-test", pretrained=str(tmp_path / name), embeddings=False)
        columns = Clip(config)(batch)
        assert columns["clip_score"] == pytest.approx(expected, abs=1e-6)
        assert set(columns) == {"clip_score", "error"}


def test_shuffled_images_change_the_scores(scorer, batch, batch_of):
    """The score depends on the image as well as on the caption."""
    shuffled = batch_of(CAPTIONS, batch.images[1:] + batch.images[:1])
    before, after = scorer(batch)["clip_score"], scorer(shuffled)["clip_score"]
    assert all(abs(a - b) > 1e-4 for a, b in zip(before, after, strict=True))


def test_order_and_batch_size_change_nothing(folder, scorer, batch, take):
    """Any order and any sub-batch gives each pair the same score to 1e-5."""
    whole = scorer(batch)["clip_score"]
    order = [5, 3, 1, 0, 2, 4]
    for size in (1, 2, 256):
        other = Clip(ClipScorer(model=str(folder), batch_size=size))
        assert other(take(batch, order))["clip_score"] == pytest.approx(
            [whole[row] for row in order], abs=1e-5
        )


def test_a_bad_sample_costs_that_sample(scorer, batch_of, noise):
    """No image, no caption and no pixels are errors; huge captions are cut and scored."""
    broken = np.zeros((0, 5, 3), np.uint8)
    images = [None, noise(0), noise(1), broken, noise(2), noise(3), noise(4)]
    captions = ["a", None, " \n", "a", "x" * 10_000_000, "\ud800\x00\u202e", "a dog"]
    columns = scorer(batch_of(captions, images))
    assert columns["error"][:3] == ["undecodable image", "no caption", "no caption"]
    assert columns["error"][3].startswith("image not prepared: ")
    assert columns["error"][4:] == [None] * 3
    assert [score is None for score in columns["clip_score"]] == [True] * 4 + [False] * 3
    missing = {n: np.isnan(columns[n]).any(axis=1).tolist() for n in ("image_emb", "text_emb")}
    assert missing["text_emb"] == [True] * 4 + [False] * 3
    assert missing["image_emb"] == [True, False, False, True] + [False] * 3


def test_an_image_without_a_caption_has_its_embedding(scorer, batch_of, noise):
    """The same as with one: what is said of the image alone needs no caption."""
    images = [noise(i) for i in range(3)]
    bare, read = scorer(batch_of([None, "", "a dog"], images)), scorer(batch_of(["a"] * 3, images))
    assert np.allclose(bare["image_emb"], read["image_emb"], atol=1e-3)
    assert [s is None for s in bare["clip_score"]] == [True, True, False]


def test_a_batch_of_nothing_keeps_its_columns(scorer, batch_of):
    """Empty batches and batches of errors alone have columns of their length."""
    assert scorer(batch_of([], []))["image_emb"].shape == (0, 16)
    assert scorer(batch_of(["a"], [None]))["clip_score"] == [None]


def test_what_was_prepared_beforehand_is_what_counts(scorer, batch):
    """Pixels from `prepare` in the batch give the same to the bit, and a reason is the error."""
    ready = [scorer.prepare(image) for image in batch.images]
    ready[2] = "image not prepared: made to fail"
    prepared = replace(batch, columns={"clip__prepared": ready})
    columns, expected = scorer(prepared), scorer(batch)
    assert columns["error"] == [None, None, ready[2], None, None, None]
    assert columns["clip_score"][2] is None
    for row in (0, 1, 3, 4, 5):
        assert columns["clip_score"][row] == pytest.approx(expected["clip_score"][row], abs=1e-6)
        assert np.abs(columns["image_emb"][row] - expected["image_emb"][row]).max() < 1e-3


def test_an_image_with_many_captions_and_a_caption_with_many_images_cost_once(
    folder, batch_of, noise
):
    """Each distinct image and each distinct caption goes through the model once."""
    scorer = Clip(ClipScorer(model=str(folder)))
    one, other = noise(1), noise(2)
    seen = {"image": 0, "text": 0}

    def count(name):
        def add(_, given, __):
            seen[name] += len(given[0])

        return add

    scorer.model.visual.register_forward_hook(count("image"))
    scorer.model.transformer.register_forward_hook(count("text"))
    captions = ["a", "b", "c", "a", "b", "c", "a"]
    columns = scorer(batch_of(captions, [one, one, one, other, other, other, None]))
    assert seen == {"image": 2, "text": 3}
    found = np.array(columns["clip_score"][:6]).reshape(2, 3)
    text, image = columns["text_emb"][:3], columns["image_emb"][[0, 3]]
    assert np.abs(found - image.astype(np.float32) @ text.astype(np.float32).T).max() < 2e-3


def test_out_of_memory_halves_the_batch_and_goes_on(folder, batch):
    """A model that has memory for two images or texts at once scores all the same."""
    expected = Clip(ClipScorer(model=str(folder)))(batch)["clip_score"]
    scorer = Clip(ClipScorer(model=str(folder)))

    def refuse(_, given):
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    scorer.model.visual.register_forward_pre_hook(refuse)
    scorer.model.transformer.register_forward_pre_hook(refuse)
    assert scorer(batch)["clip_score"] == pytest.approx(expected, abs=1e-5)


def test_very_long_images_are_scored(scorer, batch_of):
    """An image of 1 x 20 000 does not grow to gigabytes."""
    line = np.zeros((1, 20_000, 3), np.uint8)
    assert scorer(batch_of(["a"], [line]))["error"] == [None]
