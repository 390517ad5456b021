import json
from dataclasses import replace

import cv2
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import models
from curate.scoring import to_table
from models.bootstrap import on_threads
from models.scorers.clip import Clip
from models.scorers.tmars import Tmars, overlap, words_of
from models.text_boxes import covered
from schemas.configs import ClipScorer, TmarsScorer
from schemas.tables import SCORES
from tests.normalised import normalised
from tests.written import SIDE, noise, write

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
FRUIT = {
    "cherry": (200, 20, 40),
    "lime": (60, 190, 40),
    "plum": (90, 30, 140),
    "sky": (50, 120, 250),
}
EMPTY = "fog"
STEPS = 150


def picture(seed: int, written: str | None, shown: str | None) -> np.ndarray:
    """A grey scene, with a word above and a disc in a fruit's colour below, as asked."""
    draw = np.random.default_rng(seed)
    image = noise(seed).mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.3 + 120
    image = image.astype(np.uint8)
    x, y = (int(v) for v in draw.integers(-4, 5, 2))
    if shown:
        cv2.circle(image, (128 + x, 180 + y), int(draw.integers(40, 56)), FRUIT[shown], -1)
    if written:
        image, _ = write(image, written, 50, at=(128 + y, 64 + x))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny open_clip model trained for seconds on words as much as on things: it reads. It has
    seen empty scenes too, whose caption is EMPTY.
    """
    path = tmp_path_factory.mktemp("reads")
    names = [*FRUIT, EMPTY]
    images, which = training_set(names)
    with torch.random.fork_rng(devices=[]), on_threads(1):
        torch.manual_seed(0)
        model = open_clip.CLIP(**TINY).train()
        torch.nn.init.normal_(model.token_embedding.weight)  # else texts start out too alike
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
        tokens = open_clip.tokenize(names, context_length=8)
        for _ in range(STEPS):
            rows = torch.randperm(len(images))[:32]
            image_emb = model.encode_image(images[rows], normalize=True)
            logits = model.logit_scale.exp() * image_emb @ model.encode_text(tokens, True).T
            loss = torch.nn.functional.cross_entropy(logits, which[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


def training_set(names):
    """Images as the model sees them, half with a word and half with a thing, and their captions'
    places among the names."""
    size, found = TINY["vision_cfg"]["image_size"], []
    for seed in range(64):
        for place, name in enumerate(names):
            content = (None, None) if name == EMPTY else ((name, None), (None, name))[seed % 2]
            image = picture(seed, *content)
            found.append((cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), place))
    images, places = zip(*found, strict=True)
    return normalised(np.stack(images)), torch.tensor(places)


@pytest.fixture(scope="module")
def scorer(folder):
    return models.scorer(TmarsScorer(model=str(folder), batch_size=4, recognise=True))


@pytest.fixture(scope="module")
def clip(folder):
    """The plain cosine by the same model: what is scored where nothing is covered."""
    return Clip(ClipScorer(model=str(folder)))


def pairs(written: bool, shown: bool, seeds=range(200, 205)):
    """Captions, and images that show them by a word, by a thing, or both."""
    every = [(name, seed) for name in FRUIT for seed in seeds]
    images = [picture(s, name if written else None, name if shown else None) for name, s in every]
    return [name for name, _ in every], images


def test_a_match_by_its_text_alone_falls(scorer, clip, batch_of):
    """A model that reads finds the caption in a written word; covered, it is an empty scene. With
    nothing covered it would score as `clip` does, and this would fail."""
    batch = batch_of(*pairs(written=True, shown=False))
    empty = batch_of(*pairs(written=False, shown=False))
    plain, masked = np.array(clip(batch)["clip_score"]), np.array(scorer(batch)["tmars"])
    assert np.mean(plain > masked + 0.2) >= 0.9  # 19 of 20; a model that cannot read has 0
    assert plain.mean() > masked.mean() + 0.3
    assert masked == pytest.approx(clip(empty)["clip_score"], abs=0.1)


def test_the_same_image_with_the_thing_stays(scorer, clip, batch_of):
    """With the thing beside the word the score is that of the thing alone, far above a fake's."""
    both = batch_of(*pairs(written=True, shown=True))
    alone = batch_of(*pairs(written=False, shown=True))
    fakes = batch_of(*pairs(written=True, shown=False))
    masked = np.array(scorer(both)["tmars"])
    assert masked == pytest.approx(clip(alone)["clip_score"], abs=0.1)
    assert masked.min() > max(scorer(fakes)["tmars"]) + 0.2


def test_a_wrong_word_does_not_spoil_a_thing(scorer, clip, batch_of):
    """A lime labelled plum is a lime again once the label is covered."""
    names = list(FRUIT)
    images = [picture(at, names[at - 3], name) for at, name in enumerate(names)]
    things = [picture(at, None, name) for at, name in enumerate(names)]
    labelled, thing = batch_of(names, images), clip(batch_of(names, things))["clip_score"]
    assert scorer(labelled)["tmars"] == pytest.approx(thing, abs=0.1)
    assert np.mean(clip(labelled)["clip_score"]) < np.mean(thing) - 0.3  # what the label does


def test_an_image_without_text_has_the_plain_cosine(scorer, clip, batch_of):
    """To 1e-6, with no box, no area and no overlap."""
    batch = batch_of(*pairs(written=False, shown=True))
    columns = scorer(batch)
    assert columns["tmars"] == pytest.approx(clip(batch)["clip_score"], abs=1e-6)
    assert columns["text_boxes"] == columns["text_area"] == columns["text_overlap"] == [0] * 20


def test_the_text_is_measured(scorer, batch_of):
    """Boxes are counted, their union is a share of the image, and the caption's words in them."""
    image, first = write(picture(1, None, "lime"), "cherry pie", 30, at=(128, 40))
    image, second = write(image, "of plums", 30, at=(128, 90))
    captions = ["Cherry-Pie!", "cherry tart", "a lime", "CHERRY pie of plums", "of of of", "🙂"]
    columns = scorer(batch_of(captions, [image] * 6))
    assert columns["text_boxes"] == [2] * 6
    assert columns["text_overlap"] == [1, 0.5, 0, 1, 1, None]
    (area,) = set(columns["text_area"])
    letters = first | second
    assert letters.mean() < area < 0.35
    boxes, _ = scorer.ocr(image)
    assert area == pytest.approx(covered(boxes, SIDE, SIDE).mean())


def test_without_recognise_the_overlap_is_unknown(folder, scorer, batch_of):
    """Null, and all else is the same."""
    finder = Tmars(TmarsScorer(model=str(folder)))
    batch = batch_of(*pairs(written=True, shown=True, seeds=[7]))
    columns, expected = finder(batch), scorer(batch)
    assert columns["text_overlap"] == [None] * 4
    assert expected["text_overlap"] == [1] * 4
    for name in ("text_area", "text_boxes", "error"):
        assert columns[name] == expected[name]
    assert columns["tmars"] == pytest.approx(expected["tmars"], abs=1e-6)


def test_captions_change_no_column_of_the_image(scorer, batch_of):
    """Area and boxes are the image's, whatever is said of it."""
    captions, images = pairs(written=True, shown=True, seeds=[3])
    first = scorer(batch_of(captions, images))
    other = scorer(batch_of(["something else entirely"] * 4, images))
    for name in ("text_area", "text_boxes"):
        assert first[name] == other[name]
    assert first["tmars"] != other["tmars"]


def test_order_and_batch_size_change_nothing(folder, scorer, batch_of, take):
    """Any order and any batch size give each pair the same to 1e-5."""
    captions, images = pairs(written=True, shown=True, seeds=[1, 2])
    batch = batch_of(captions, images)
    whole, order = scorer(batch), [5, 0, 7, 3, 1, 6, 2, 4]
    other = Tmars(TmarsScorer(model=str(folder), batch_size=3, recognise=True))
    for rows in (order, order[:3], order[3:4]):
        columns = other(take(batch, rows))
        for name in SCORES["tmars"].names:
            assert columns[name] == pytest.approx([whole[name][row] for row in rows], abs=1e-5)


def test_what_was_prepared_beforehand_is_what_counts(scorer, batch_of):
    """Images from `prepare` in the batch give the same to the bit, and a reason is the error."""
    batch = batch_of(*pairs(written=True, shown=True, seeds=[4]))
    ready = [scorer.prepare(image) for image in batch.images]
    ready[1] = "image not prepared: made to fail"
    columns = scorer(replace(batch, columns={"tmars__prepared": ready}))
    expected = scorer(batch)
    assert columns["error"] == [None, ready[1], None, None]
    for name in SCORES["tmars"].names:
        assert columns[name][1] is None
        for row in (0, 2, 3):
            assert columns[name][row] == pytest.approx(expected[name][row], abs=1e-6)


def test_an_image_with_many_captions_is_looked_at_once(scorer, batch_of, monkeypatch):
    """The detector sees each distinct image of a call once, and none whose pair is not scored."""
    ocr, seen = scorer.ocr, []

    def counted(image):
        seen.append(image)
        return ocr(image)

    monkeypatch.setattr(scorer, "ocr", counted)
    one, other = picture(1, "lime", None), picture(2, "plum", None)
    scorer(
        batch_of(
            ["a", "b", "c", "a", "", None], [one, one, other, other, picture(3, None, None), one]
        )
    )
    assert len(seen) == 2


def test_a_bad_sample_costs_that_sample(scorer, batch_of, noise):
    """No image, no caption and no pixels are errors; huge, strange and small ones are scored."""
    images = [
        *(None, noise(0), noise(1), np.zeros((0, 5, 3), np.uint8)),
        *(
            noise(2),
            noise(3),
            noise(4, 1, 1),
            noise(5, 60, 60, 4),
            np.zeros((1, 20_000, 3), np.uint8),
        ),
    ]
    captions = [
        *("a", None, " \n", "a"),
        *("x " * 5_000_000, "\ud800\x00\u202e רכב אדום 🙂", "a dog", "a", "a"),
    ]
    columns = scorer(batch_of(captions, images))
    assert columns["error"][:3] == ["undecodable image", "no caption", "no caption"]
    assert columns["error"][3].startswith("image not prepared: ")
    assert columns["error"][4:] == [None] * 5
    for name in SCORES["tmars"].names:
        assert [value is None for value in columns[name]] == [True] * 4 + [False] * 5


def test_text_is_found_where_an_image_is_transparent(scorer, batch_of):
    """What is seen over white is what is looked at: letters in alpha alone, and grey images."""
    _, ink = write(np.full((SIDE, SIDE, 3), 255, np.uint8), "cherry", 40)
    letters = np.zeros((SIDE, SIDE, 4), np.uint8)
    letters[..., 3] = ink * 255
    grey = np.where(ink, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    columns = scorer(batch_of(["cherry"] * 2, [letters, grey]))
    assert columns["text_overlap"] == [1, 1]
    assert columns["tmars"][0] == pytest.approx(columns["tmars"][1], abs=1e-5)


def test_words_are_compared_by_what_they_say():
    """Case, width, accents' encoding, apostrophes and punctuation make no difference; each Chinese
    character is a word."""
    assert words_of("Don’t STOP: it's-50% ＯＦＦ_now") == [
        "dont",
        "stop",
        "its",
        "50",
        "off",
        "now",
    ]
    assert words_of("Cafe\u0301 Straße") == words_of("CAFÉ STRASSE")
    assert words_of("红色 car") == ["红", "色", "car"]
    assert words_of("🙂 -- !") == []


def test_overlap_is_a_share_of_the_captions_words():
    """Distinct words, in any line; longer ones also where the reader dropped the spaces."""
    assert overlap("red dog, red cat", ["DOG", "Red"]) == pytest.approx(2 / 3)
    assert overlap("winter coat", ["wintercoat"]) == 1
    assert overlap("a red car", ["ared carpet"]) == 0
    assert overlap("winter coat", []) == 0
    assert overlap("winter coat", None) is None
    assert overlap("?!", ["winter"]) is None


def test_scores_fit_their_table(scorer, batch_of):
    """The columns are those of scores_tmars, nulls where there is no score."""
    batch = batch_of(["plum", "plum"], [picture(1, "plum", None), None])
    table = to_table(batch, scorer(batch), "tmars")
    assert table.column_names[2:] == [*SCORES["tmars"].names, "error"]
    for name in SCORES["tmars"].names:
        assert [value is None for value in table[name].to_pylist()] == [False, True]
    assert scorer(batch_of([], [])) == {name: [] for name in (*SCORES["tmars"].names, "error")}


@pytest.mark.usefixtures("no_hub")
def test_a_model_out_of_reach_is_one_clear_line():
    """Weights that cannot be had are an error with the remedy, never random ones."""
    with pytest.raises(ValueError, match=r"cannot be loaded .*give the path") as found:
        Tmars(TmarsScorer(model="ViT-B-32", pretrained="openai"))
    assert "\n" not in str(found.value)
