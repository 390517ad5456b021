import hashlib
import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import models
from curate.scoring import to_table
from models.bootstrap import on_threads
from models.clip import info_nce
from models.scorers.visualness import Visualness, null_image
from schemas.configs import VisualnessScorer
from schemas.tables import SCORES
from tests.normalised import normalised

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "white": [240] * 3}
SHADES = {"pale": 60, "plain": 0, "dark": -60}
SHAPES = {"left": (slice(None), slice(0, 16)), "top": (slice(0, 16), slice(None))}
VISUAL = [f"a {s} {c} {p}" for s in SHADES for c in COLOURS for p in SHAPES]
ABSTRACT = [
    *("thank you for your support", "our terms and conditions", "why it matters to us all"),
    *("free delivery from today", "learn more about honesty", "she hopes that he knows"),
    *("in general this is true", "the truth of the matter", "please read before you apply"),
    *("all rights reserved", "we value your opinion", "nothing is impossible"),
]
CAPTIONS = VISUAL + ABSTRACT
STEPS = 60


def picture(caption, draw):
    """Half of an image in the colour that its caption says, on grey; of an abstract one, noise."""
    if caption in ABSTRACT:
        return draw.integers(0, 256, (32, 32, 3), np.uint8)
    _, shade, colour, place = caption.split()
    image = np.full((32, 32, 3), 128)
    image[SHAPES[place]] = np.array(COLOURS[colour]) + SHADES[shade]
    return np.clip(image + draw.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny open_clip model, trained for a moment as TIP-CLIP is: an abstract text's image is
    random pixels, and no two of these are each other's negatives."""
    path = tmp_path_factory.mktemp("trained")
    draw = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]), on_threads(1):
        torch.manual_seed(0)
        model = open_clip.CLIP(**TINY).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        tokens = open_clip.tokenize(CAPTIONS, context_length=12)
        abstract = torch.tensor([caption in ABSTRACT for caption in CAPTIONS])
        for _ in range(STEPS):
            images = np.stack([picture(caption, draw) for caption in CAPTIONS])
            loss = info_nce(
                model.encode_image(normalised(images), normalize=True),
                model.encode_text(tokens, normalize=True),
                model.logit_scale.exp(),
                abstract[:, None] & abstract[None, :],
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return models.scorer(VisualnessScorer(model=str(folder), batch_size=4))


@pytest.fixture
def batch(batch_of):
    return batch_of(CAPTIONS, [None] * len(CAPTIONS))


def test_scores_are_open_clips(folder, scorer, batch):
    """1 - cosine with the null image, by open_clip used by hand, caption by caption."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    null = Image.fromarray(null_image(0, 32, 32))
    columns = scorer(batch)
    for caption, score in zip(CAPTIONS, columns["visualness"], strict=True):
        with torch.no_grad():
            image_emb = model.encode_image(transform(null)[None], normalize=True)
            text_emb = model.encode_text(tokenizer([caption]), normalize=True)
        assert score == pytest.approx(1 - (image_emb @ text_emb.T).item(), abs=1e-5)
    assert columns["error"] == [None] * len(CAPTIONS)
    assert np.std(columns["visualness"]) > 0.01


def test_it_is_a_function_of_the_text_alone(scorer, batch, batch_of, noise):
    """Other images, or none, change no score."""
    images = [noise(i, 20 + i, 30) for i in range(len(CAPTIONS))]
    assert scorer(batch_of(CAPTIONS, images)) == scorer(batch)


def test_other_captions_have_other_scores(scorer, batch):
    """No two of these captions score alike."""
    assert len({round(score, 6) for score in scorer(batch)["visualness"]}) == len(CAPTIONS)


def test_visual_captions_score_higher(scorer, batch):
    """By a model that was trained as TIP-CLIP is, every visual caption is above every other."""
    scores = np.array(scorer(batch)["visualness"])
    assert scores[: len(VISUAL)].min() > scores[len(VISUAL) :].max()


def test_another_null_image_ranks_alike(folder, batch):
    """By such a model other random pixels keep nearly the order, and the two kinds apart. (The
    0.95 of a large CLIP at 224 pixels is beyond 16 patches and a moment's training.)"""
    scores = [
        Visualness(VisualnessScorer(model=str(folder), null_seed=seed))(batch)["visualness"]
        for seed in range(4)
    ]
    ranks = [np.argsort(np.argsort(score)) for score in scores]
    assert np.corrcoef(ranks).min() > 0.8
    assert all(min(s[: len(VISUAL)]) > max(s[len(VISUAL) :]) for s in scores)
    assert scores[0] != scores[1]


def test_the_null_image_is_fixed_for_ever(folder, scorer):
    """Its pixels are a function of the seed and the model's input size, and their digest is kept:
    what one version scored, the next scores alike."""
    image = null_image(0, 32, 32)
    assert scorer.null_sha256 == hashlib.sha256(image.tobytes()).hexdigest() == DIGEST
    assert image.shape == (32, 32, 3)
    other = Visualness(VisualnessScorer(model=str(folder), null_seed=1))
    assert other.null_sha256 != DIGEST
    assert abs(image.mean() - 127.5) < 5
    assert abs(image.std() - 73.9) < 3


DIGEST = "f2b5f1ad57df53a808a683d041aadc926b78a8211a488d29ce6d5d9a0be3b61b"


def test_order_and_batch_size_change_nothing(folder, scorer, batch, take):
    """Any order and any batch size give each caption the same score to 1e-5."""
    whole = scorer(batch)["visualness"]
    order = np.random.default_rng(0).permutation(len(CAPTIONS)).tolist()
    for size in (1, 5, 256):
        other = Visualness(VisualnessScorer(model=str(folder), batch_size=size))
        assert other(take(batch, order))["visualness"] == pytest.approx(
            [whole[row] for row in order], abs=1e-5
        )


def test_equal_captions_are_encoded_once(folder, batch_of, monkeypatch):
    """A caption that occurs many times costs one encoding."""
    scorer = Visualness(VisualnessScorer(model=str(folder)))
    tokenizer, seen = scorer.tokenizer, []

    def counted(texts):
        seen.extend(texts)
        return tokenizer(texts)

    monkeypatch.setattr(scorer, "tokenizer", counted)
    scores = scorer(batch_of(["a", "b", "a", "a"], [None] * 4))["visualness"]
    assert seen == ["a", "b"]
    assert scores[0] == scores[2] == scores[3] != scores[1]


def test_a_bad_caption_costs_that_caption(scorer, batch_of):
    """Null and blank captions are errors; huge, right-to-left and broken ones are scored."""
    captions = [None, "", " \n", "x" * 10_000_000, "שלום 🙂", "\ud800\x00\u202e", "a"]
    columns = scorer(batch_of(captions, [None] * 7))
    assert columns["error"] == ["no caption"] * 3 + [None] * 4
    assert [score is None for score in columns["visualness"]] == [True] * 3 + [False] * 4
    assert all(0 <= score <= 2 for score in columns["visualness"][3:])
    assert scorer(batch_of([], [])) == {"visualness": [], "error": []}
    assert scorer(batch_of([None], [None]))["visualness"] == [None]


def test_scores_fit_their_table(scorer, batch_of):
    """The columns are those of scores_visualness, nulls where there is no caption."""
    batch = batch_of(["a red dog", None], [None] * 2)
    table = to_table(batch, scorer(batch), "visualness")
    first = SCORES["visualness"].names[0]
    assert [value is None for value in table[first].to_pylist()] == [False, True]
    assert table["error"].to_pylist() == [None, "no caption"]


def test_a_model_out_of_reach_is_one_clear_line(tmp_path):
    """Weights that cannot be had are an error with the remedy, never random ones."""
    with pytest.raises(ValueError, match=r"cannot be loaded .*give the path") as found:
        Visualness(VisualnessScorer(model="ViT-B-32", pretrained=str(tmp_path / "nowhere.pt")))
    assert "\n" not in str(found.value)
