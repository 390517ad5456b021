from itertools import pairwise

import numpy as np
import pytest
import torch

from models.bootstrap import on_threads
from models.codebook_training import (
    CodebookTraining,
    Pairs,
    evaluate,
    learning_rate,
    phrase_vectors,
    unigram_loss,
)
from models.phrases import frequent_phrases
from models.vocabulary import Vocabulary
from schemas.configs import CodebookCaptioner, VitEncoder
from tests.shapes import COLOURS, TINY, pictures

HOSTILE = ["", "\x00\x1b[2J", "x" * 100_000, "word " * 5000, "\ud800", "💥🦆", "犬" * 300, "%s{}"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two that wait for each other are slower where others run beside them."""
    with on_threads(1):
        yield


def training(config: CodebookCaptioner = TINY, count: int = 24, clean: int = 0) -> CodebookTraining:
    pool = Pairs(*pictures(count, side=16))
    other = Pairs(*pictures(clean, start=900, side=16)) if clean else None
    words = Vocabulary.learn(pool.captions, config.vocabulary)
    return CodebookTraining(
        config, words, frequent_phrases(pool.captions, config.codes), pool, other
    )


def run(made: CodebookTraining, begin: int, end: int) -> list[dict[str, float]]:
    return [made(step) for step in range(begin, end)]


def same(one: CodebookTraining, other: CodebookTraining) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------ it learns


@pytest.fixture(scope="module")
def learned() -> tuple[CodebookTraining, dict[str, float], float]:
    """A captioner of coloured shapes, and what it makes of shapes that it has not seen."""
    config = CodebookCaptioner(
        encoder=VitEncoder(image_size=32, patch_size=8, width=64, layers=2),
        codes=64,
        dim=64,
        heads=2,
        layers=1,
        steps=200,
        train_batch_size=32,
        vocabulary=32,
        context_length=10,
        shift=1,
        dropout=0.0,
    )
    pool, held_out = Pairs(*pictures(600)), Pairs(*pictures(100, start=5000))
    words = Vocabulary.learn(pool.captions, 32)
    made = CodebookTraining(config, words, frequent_phrases(pool.captions, 64), pool)
    run(made, 0, made.steps)
    known = words.encode(held_out.captions, config.context_length)
    return made, made.evaluate(held_out), unigram_loss(made.tokens[0], known, words.size)


def test_shapes_are_captioned_from_their_pixels(learned):
    """Far below what is possible without the image; and the codebook is used."""
    _, found, unigram = learned
    assert found["validation"] < 0.25 < 0.5 * found["mean_image"]
    assert found["validation"] < 0.25 * found["other_image"]
    assert found["mean_image"] < unigram
    assert found["validation_codes_in_use"] > 0.5
    assert 8 < found["validation_perplexity"] <= 64


def test_captions_name_colour_and_place(learned):
    """Of unseen images nearly all captions have the right colour and the right side."""
    images, captions = pictures(60, start=7000)
    told = learned[0].say(images)
    right = [
        {w for w in said.split() if w in (*COLOURS, "left", "right")}
        == {w for w in true.split() if w in (*COLOURS, "left", "right")}
        for said, true in zip(told, captions, strict=True)
    ]
    assert np.mean(right) > 0.85


def test_other_names_for_codes_change_no_caption(learned):
    """Codes are names: shuffled in codebook and images alike, all captions stay."""
    model = learned[0].model.eval()
    images = pictures(20, start=8000)[0]
    codes, told = model.codes(images), learned[0].say(images)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    before = model.quantiser.weight.clone()
    try:
        model.quantiser.weight.copy_(before[order])
        renamed = model.codes(images)
        assert not np.array_equal(renamed, codes)
        assert np.array_equal(order.numpy()[renamed], codes)
        assert learned[0].say(images) == told
    finally:
        model.quantiser.weight.copy_(before)


# ------------------------------------------------------------------------------------ steps


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        TINY.model_copy(update={"update": "gradient", "init": "data"}),
        TINY.model_copy(update={"init": "uniform", "dropout": 0.5}),
    ],
    ids=["ema", "gradient", "uniform"],
)
@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_training_goes_on_to_the_same_bits(config, at: int):
    """From the state after any step, in both phases: weights, moments and counters are equal."""
    config = config.model_copy(update={"clean_steps": 4})
    whole = training(config, clean=9)
    values = run(whole, 0, whole.steps)
    first = training(config, clean=9)
    run(first, 0, at)
    second = training(config, clean=9)
    second.load(first.state())
    assert run(second, at, second.steps) == values[at:]
    assert same(whole, second)
    assert whole.steps == 10


def test_the_seed_decides_the_weights():
    """Equal seeds, equal bits; another seed gives another model."""
    one, two = training(), training()
    other = training(TINY.model_copy(update={"seed": 1}))
    for made in (one, two, other):
        run(made, 0, 3)
    assert same(one, two)
    assert not same(one, other)


def test_torch_is_left_as_it_was():
    """Neither building nor a step moves the global generator."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(training(), 0, 2)
    assert torch.equal(torch.rand(1), expected)


def test_an_epoch_sees_every_pair_once():
    """Batches of an epoch have no row twice; the next one has another order."""
    made = training(TINY.model_copy(update={"steps": 12}), count=24)
    seen = [made._batch(step)[1] for step in range(12)]
    epochs = [np.concatenate(seen[:6]), np.concatenate(seen[6:])]
    expected = np.sort(made.tokens[0], axis=0)
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch, axis=0), expected)
    assert not np.array_equal(*epochs)


def test_clean_captions_come_last():
    """After `steps` the batches are of the clean set alone."""
    made = training(TINY.model_copy(update={"clean_steps": 3}), count=24, clean=5)
    clean = {tuple(row) for row in made.tokens[1]}
    for step in range(made.steps):
        rows = {tuple(row) for row in made._batch(step)[1]}
        assert (rows <= clean) == (step >= 6)


def test_the_rate_rises_falls_and_starts_again():
    """Warm-up to `lr`, down to 0, up to `clean_lr` and down again."""
    config = TINY.model_copy(update={"steps": 20, "clean_steps": 10, "warmup": 4})
    rates = [learning_rate(step, config) for step in range(30)]
    assert max(rates[:20]) == rates[3] == rates[4] == config.lr
    assert max(rates[20:]) == rates[23] == config.clean_lr
    assert rates[19] < 0.02 * config.lr
    assert all(a > b for a, b in pairwise(rates[4:20]))


# ------------------------------------------------------------------------------------ first codes


def test_codes_start_at_the_phrases():
    """Code k is the mean word vector of the k-th phrase, as long as a patch vector; what no phrase
    fills is a patch.
    """
    config = TINY.model_copy(update={"codes": 20})
    made = training(config)
    phrases = frequent_phrases(made.phases[0].captions, 20)
    weight, words = made.model.quantiser.weight, made.model.decoder.words.weight
    expected = phrase_vectors(made.model, phrases)
    assert 5 < len(phrases) < 20
    assert torch.equal(weight[: len(phrases)], expected)
    assert torch.allclose(expected.norm(dim=1), torch.tensor(4.0))
    pair = next(i for i, p in enumerate(phrases) if len(p) == 2)
    ids = [made.vocabulary.id_of(word) for word in phrases[pair]]
    mean = words[ids].mean(0)
    assert torch.allclose(expected[pair] / 4, mean / mean.norm(), atol=1e-6)


def test_codes_start_where_they_are_told():
    """`data` puts them on patches of the pool, `uniform` near zero."""
    weights = {
        init: training(TINY.model_copy(update={"init": init})).model.quantiser.weight
        for init in ("data", "uniform", "keywords")
    }
    assert weights["uniform"].abs().max() <= 1 / 8
    assert weights["data"].abs().max() > 0.5
    assert not torch.equal(weights["data"], weights["keywords"])


# ------------------------------------------------------------------------------------ judging


def test_the_unigram_loss_is_that_of_counting():
    """-log of (count + 1) / sum over held-out words and ends, unknown ones aside."""
    v = Vocabulary(["a", "b"])
    train, held = v.encode(["a a b", "a"], 6), v.encode(["a b zebra"], 6)
    counts = {"a": 3 + 1, "b": 1 + 1, "end": 2 + 1}
    total = sum(counts.values()) + 3  # padding, unknown, start
    expected = -np.mean([np.log(counts[w] / total) for w in ("a", "b", "end")])
    assert unigram_loss(train, held, v.size) == pytest.approx(expected)


def test_unknown_words_are_read_and_never_told():
    """Their own loss counts nowhere: what is left is that of the words around them."""
    made = training()
    v, model = made.vocabulary, made.model.eval()
    images = made.phases[0].images[:1]
    tokens = v.encode(["red qqq disc"], 8)
    with torch.inference_mode():
        patches = model.quantiser(model.patches(images)).vectors
        nats = -model.decoder(torch.from_numpy(tokens[:, :-1]), patches).log_softmax(-1)[0]
    expected = [nats[0, v.id_of("red")], nats[2, v.id_of("disc")], nats[3, v.end]]
    found = evaluate(model, images, tokens)
    assert found["validation"] == pytest.approx(float(np.mean(expected)), abs=1e-5)


def test_judging_does_not_depend_on_how_many_at_once(monkeypatch):
    """Batches of any size give the same figures."""
    made = training()
    images, captions = pictures(11, side=16)
    found = made.evaluate(Pairs(images, captions))
    monkeypatch.setattr("models.codebook_training.EVALUATED", 3)
    assert made.evaluate(Pairs(images, captions)) == pytest.approx(found, abs=1e-5)


# ------------------------------------------------------------------------------------ hostile


def test_hostile_captions_train():
    """Empty, endless and unreadable captions leave finite weights."""
    images, captions = pictures(16, side=16)
    pool = Pairs(images, [*HOSTILE, *captions[8:]])
    words = Vocabulary.learn(pool.captions, 32)
    made = CodebookTraining(TINY, words, frequent_phrases(pool.captions, 8), pool)
    values = run(made, 0, 6)
    assert all(np.isfinite(v) for step in values for v in step.values())
    assert all(isinstance(text, str) for text in made.say(images[:4]))


def test_images_of_one_colour_train():
    """Where all patches are equal no variance is divided by: weights stay finite."""
    pool = Pairs(np.zeros((8, 16, 16, 3), np.uint8), ["black"] * 8)
    made = CodebookTraining(TINY, Vocabulary.learn(pool.captions, 16), [], pool)
    assert all(np.isfinite(v) for step in run(made, 0, 6) for v in step.values())


def test_images_of_another_size_are_refused():
    """The error has both shapes."""
    images, captions = pictures(4, side=24)
    with pytest.raises(ValueError, match=r"\(4, 24, 24, 3\), needed \(4, 16, 16, 3\)"):
        CodebookTraining(TINY, Vocabulary.learn(captions, 16), [], Pairs(images, captions))
    with pytest.raises(ValueError, match="at least one pair"):
        CodebookTraining(TINY, Vocabulary([]), [], Pairs(images[:0], []))
