import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipForImageTextRetrieval, BlipProcessor

import models
from curate.scoring import to_table
from models.decode import over_white
from models.scorers.itm import Itm
from schemas.configs import ItmScorer
from schemas.tables import SCORES
from tests.blip import tiny_blip
from tests.blip_itm import LONGEST, tiny_itm

CAPTIONS = [
    "a red dog on two hill",
    "two cat",
    "a picture of a blue tree on a hill",
    "a tree",
    "sky",
    "two red cat on a blue hill on a tree",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_itm(tmp_path_factory.mktemp("itm"))


@pytest.fixture(scope="module")
def scorer(folder):
    return models.scorer(ItmScorer(model=str(folder), batch_size=4))


@pytest.fixture
def batch(batch_of, noise):
    return batch_of(CAPTIONS, [noise(i, 40 + i, 50, 3 + i % 2) for i in range(len(CAPTIONS))])


def close(first, second, tolerance=1e-5):
    for name in SCORES["itm"].names:
        assert first[name] == pytest.approx(second[name], abs=tolerance)


def by_hand(folder, batch, enc_id=None):
    """transformers' own class, one pair at a time."""
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    processor = BlipProcessor.from_pretrained(folder)
    columns = {"itm_prob": [], "itc_score": []}
    for caption, image in zip(batch.captions, batch.images, strict=True):
        inputs = processor(
            images=Image.fromarray(over_white(image)), text=caption, return_tensors="pt"
        )
        with torch.no_grad():
            cosine = model(**inputs, use_itm_head=False).itm_score
            if enc_id is not None:
                inputs["input_ids"][:, 0] = enc_id
            logits = model(**inputs, use_itm_head=True).itm_score
        columns["itm_prob"].append(torch.softmax(logits, dim=1)[0, 1].item())
        columns["itc_score"].append(cosine.item())
    return columns


def test_scores_are_those_of_transformers(folder, scorer, batch):
    """Batches give what BlipForImageTextRetrieval gives of one pair at a time, to 1e-5."""
    columns = scorer(batch)
    close(columns, by_hand(folder, batch))
    assert columns["error"] == [None] * len(batch)
    assert np.std(columns["itm_prob"]) > 0.01
    assert np.std(columns["itc_score"]) > 0.01


def test_enc_stands_where_the_authors_have_it(folder, batch):
    """With enc_token the cross-encoder reads [ENC] first; the cosine's encoder still [CLS]."""
    scorer = Itm(ItmScorer(model=str(folder), enc_token=True))
    last = scorer.blip.model.config.text_config.vocab_size - 1
    columns = scorer(batch)
    close(columns, by_hand(folder, batch, enc_id=last))
    plain = by_hand(folder, batch)
    assert columns["itm_prob"] != pytest.approx(plain["itm_prob"], abs=1e-3)


def test_a_checkpoint_without_enc_is_refused(tmp_path):
    """enc_token with a model that has no such token names the remedy."""
    path = tiny_itm(tmp_path / "itm", enc=False)
    with pytest.raises(ValueError, match=r"has no \[ENC\] token; set enc_token: false"):
        Itm(ItmScorer(model=str(path), enc_token=True))


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_order_and_batch_size_change_nothing(folder, scorer, batch, take, size):
    """Any order and any batch size give each pair the same scores to 1e-5."""
    whole = scorer(batch)
    order = [5, 3, 1, 0, 2, 4]
    other = Itm(ItmScorer(model=str(folder), batch_size=size))(take(batch, order))
    close(other, {name: [whole[name][row] for row in order] for name in SCORES["itm"].names})


def test_shuffled_images_change_every_score(scorer, batch, batch_of):
    """Both scores depend on the image."""
    shuffled = batch_of(CAPTIONS, batch.images[1:] + batch.images[:1])
    before, after = scorer(batch), scorer(shuffled)
    for name in SCORES["itm"].names:
        assert all(abs(a - b) > 1e-3 for a, b in zip(before[name], after[name], strict=True))


def test_other_captions_change_every_score(scorer, batch, batch_of):
    """Both scores depend on the caption."""
    before, after = scorer(batch), scorer(batch_of(CAPTIONS[1:] + CAPTIONS[:1], batch.images))
    for name in SCORES["itm"].names:
        assert all(abs(a - b) > 1e-3 for a, b in zip(before[name], after[name], strict=True))


def test_the_same_scores_every_time(folder, batch):
    """Two builds of the scorer agree to the bit."""
    config = ItmScorer(model=str(folder))
    assert Itm(config)(batch) == Itm(config)(batch)


def test_equal_pairs_and_equal_images_are_computed_once(folder, batch_of, noise, monkeypatch):
    """Copies of a pair get its scores without a pass of their own, as do captions of one image."""
    scorer = Itm(ItmScorer(model=str(folder)))
    images = [noise(0), noise(1), noise(0).copy(), noise(0), noise(1)]
    captions = ["a dog", "a dog", "a dog", "a cat", "a cat"]
    seen = []
    match = scorer.blip.match

    def counted(images, of_image, texts, of_text):
        seen.append((len(images), len(of_image), len(texts)))
        return match(images, of_image, texts, of_text)

    monkeypatch.setattr(scorer.blip, "match", counted)
    columns = scorer(batch_of(captions, images))
    assert seen == [(2, 4, 2)]
    assert columns["itm_prob"][0] == columns["itm_prob"][2]
    close(columns, by_hand(folder, batch_of(captions, images)))


def test_long_captions_are_cut_and_said_once(folder, batch_of, noise, caplog):
    """Past max_tokens nothing is read, with the end token kept; the log says so once."""
    scorer = Itm(ItmScorer(model=str(folder), max_tokens=6))
    fits, longer = "a red dog on", "a red dog on two hill"
    with caplog.at_level(logging.WARNING, logger="models"):
        columns = scorer(batch_of([fits, longer, longer], [noise(0), noise(0), noise(2)]))
        scorer(batch_of([longer], [noise(1)]))
    assert columns["itm_prob"][0] == pytest.approx(columns["itm_prob"][1], abs=1e-6)
    assert scorer.cut == 2
    assert [record.getMessage() for record in caplog.records] == [
        "scorer itm: 1 of 2 captions have more than 6 tokens and are cut; said once"
    ]


def test_max_tokens_counts_as_the_tokenizer_does(folder, batch_of, noise):
    """35 tokens with both ends are those of the tokenizer's own truncation."""
    scorer = Itm(ItmScorer(model=str(folder)))
    caption = " ".join(["a", "red", "dog", "sky"] * 20)
    own = scorer.blip.processor.tokenizer(caption, truncation=True, max_length=35)["input_ids"]
    assert scorer._tokens([caption])[caption] == own
    assert len(own) == 35


def test_memory_that_runs_out_halves_the_batch(folder, batch, monkeypatch):
    """A batch that does not fit is tried at half its size, down to one pair; scores are the
    same. (Memory of an accelerator cannot be filled here: the failure is raised by hand.)"""
    scorer = Itm(ItmScorer(model=str(folder), batch_size=6))
    match, sizes, most = scorer.blip.match, [], 1

    def small(images, of_image, texts, of_text):
        sizes.append(len(of_image))
        if len(of_image) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return match(images, of_image, texts, of_text)

    monkeypatch.setattr(scorer.blip, "match", small)
    columns = scorer(batch)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    close(columns, by_hand(folder, batch))
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        scorer(batch)


def test_a_bad_sample_costs_that_sample(scorer, batch_of, noise):
    """No image, no caption and no pixels are errors; huge, odd and tiny ones are scored."""
    broken = np.zeros((0, 5, 3), np.uint8)
    line = np.zeros((1, 20_000, 3), np.uint8)
    images = [None, noise(0), noise(1), broken, noise(2), noise(3), noise(4, 1, 1), line]
    captions = ["a", None, " \n", "a", "red " * 2_500_000, "\ud800\x00\u202eשלום 🙂", "a", "a"]
    columns = scorer(batch_of(captions, images))
    assert columns["error"][:3] == ["undecodable image", "no caption", "no caption"]
    assert columns["error"][3].startswith("image not prepared: ")
    assert columns["error"][4:] == [None] * 4
    for name in SCORES["itm"].names:
        assert [score is None for score in columns[name]] == [True] * 4 + [False] * 4
    assert all(0 <= score <= 1 for score in columns["itm_prob"][4:])
    assert all(-1.00001 <= score <= 1.00001 for score in columns["itc_score"][4:])


def test_a_batch_of_nothing_keeps_its_columns(scorer, batch_of):
    """Empty batches and batches of errors alone have columns of their length."""
    assert scorer(batch_of([], [])) == {"itm_prob": [], "itc_score": [], "error": []}
    assert scorer(batch_of(["a"], [None]))["itm_prob"] == [None]


def test_images_can_be_prepared_beforehand(scorer, batch, monkeypatch):
    """What `prepare` made of the images in other threads gives the same scores, and its refusal
    is the pair's error."""
    expected = scorer(batch)
    prepared = [scorer.prepare(image) for image in batch.images]
    prepared[2] = "image not prepared: too odd"
    monkeypatch.setattr(scorer, "prepare", None)
    columns = scorer(replace(batch, columns={"itm__prepared": prepared}))
    assert columns["error"] == [None, None, "image not prepared: too odd", None, None, None]
    assert columns["itm_prob"].pop(2) is columns["itc_score"].pop(2) is None
    close(columns, {n: [s for i, s in enumerate(expected[n]) if i != 2] for n in expected})


def test_scores_fit_their_table(scorer, batch):
    """The columns are those of scores_itm."""
    table = to_table(batch, scorer(batch), "itm")
    assert table["itm_prob"].to_pylist() == pytest.approx(scorer(batch)["itm_prob"])


def test_half_precision_is_near(folder, scorer, batch):
    """bf16 weights give nearly the same scores, as numbers of Python."""
    columns = Itm(ItmScorer(model=str(folder), precision="bf16"))(batch)
    close(columns, scorer(batch), tolerance=0.15)


@pytest.mark.usefixtures("no_hub")
def test_a_model_out_of_reach_is_one_clear_line():
    """With the hub out of reach the error names the model and the remedy in one line."""
    with pytest.raises(
        ValueError, match=r"nobody/nothing cannot be loaded .*give the path"
    ) as found:
        models.scorer(ItmScorer(model="nobody/nothing"))
    assert "\n" not in str(found.value)


def test_a_model_without_a_matching_head_is_refused(tmp_path):
    """A captioner's checkpoint, which transformers would fill with random weights, is refused."""
    path = tiny_blip(tmp_path / "captioner")
    with pytest.raises(ValueError, match=r"no weights for itm_head\.bias, .*text_encoder"):
        Itm(ItmScorer(model=str(path)))


def test_a_folder_without_a_processor_is_refused(folder, tmp_path):
    """Weights alone are no model: the error says what else the folder must have."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "bare" / name)
    with pytest.raises(ValueError, match="with the model and its processor"):
        Itm(ItmScorer(model=str(tmp_path / "bare")))


def test_more_tokens_than_the_model_reads_are_refused(folder):
    """max_tokens beyond the model's longest text is said with both numbers."""
    with pytest.raises(ValueError, match=f"max_tokens 41 is more than its {LONGEST}"):
        Itm(ItmScorer(model=str(folder), max_tokens=41))
