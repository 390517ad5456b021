import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import models
from curate.scoring import to_table
from models.scorers.head import Head
from schemas.configs import HeadScorer

LAION = (768, 1024, 128, 64, 16, 1)  # the improved aesthetic predictor
PLACES = (0, 2, 4, 6, 7)  # of its linear layers: dropout stands between


def layers(sizes, seed=0):
    draw = np.random.default_rng(seed)
    return [
        (
            (draw.normal(size=(after, before)) / np.sqrt(before)).astype(np.float32),
            draw.normal(size=after).astype(np.float32),
        )
        for before, after in pairwise(sizes)
    ]


def saved(path, made, places=None, prefix=""):
    named = {}
    for place, (weight, bias) in zip(places or range(len(made)), made, strict=True):
        named[f"{prefix}{place}.weight"], named[f"{prefix}{place}.bias"] = weight, bias
    save_file(named, path)
    return path


def config_of(path, **knobs):
    return HeadScorer(name="aesthetic", weights=str(path), **knobs)


def unit(n, dim, seed=1):
    found = np.random.default_rng(seed).normal(size=(n, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def by_numpy(made, embeddings, activation, output="none"):
    """The network in float64, straight from its definition."""
    from math import erf

    functions = {
        "none": lambda x: x,
        "relu": lambda x: np.maximum(x, 0),
        "gelu": lambda x: x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }
    x = embeddings.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for at, (weight, bias) in enumerate(made):
        x = x @ weight.astype(np.float64).T + bias
        if at < len(made) - 1:
            x = functions[activation](x)
    return functions[output](x)[:, 0]


@pytest.fixture
def stored(batch_of):
    """A function (embeddings or list with None) -> a batch of the second pass, without images."""

    def batch(embeddings):
        n = len(embeddings)
        return batch_of(["a"] * n, [None] * n, image_emb=list(embeddings))

    return batch


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "sigmoid"])
@pytest.mark.parametrize("output", ["none", "sigmoid"])
def test_values_are_numpys(tmp_path, stored, activation, output):
    """Every activation and output equals the same network written out in NumPy."""
    made, embeddings = layers((32, 24, 8, 1)), unit(20, 32)
    path = saved(tmp_path / "head.safetensors", made, (0, 2, 4))
    columns = models.scorer(config_of(path, activation=activation, output=output))(
        stored(embeddings)
    )
    expected = by_numpy(made, embeddings, activation, output)
    assert columns["value"] == pytest.approx(expected, abs=1e-5)
    assert columns["error"] == [None] * 20
    assert np.std(columns["value"]) > 1e-3


def test_laions_aesthetic_predictor(tmp_path, stored):
    """Its names and sizes are read as they are, and it is what torch makes of its definition."""
    made, embeddings = layers(LAION), unit(16, 768)
    path = saved(tmp_path / "sac+logos+ava1-l14.safetensors", made, PLACES, "layers.")
    linear, dropout = torch.nn.Linear, torch.nn.Dropout
    wide = [linear(768, 1024), dropout(0.2), linear(1024, 128), dropout(0.2), linear(128, 64)]
    network = torch.nn.Sequential(*wide, dropout(0.1), linear(64, 16), linear(16, 1)).eval()
    state = {
        f"{place}.{what}": tensor
        for place, layer in zip(PLACES, made, strict=True)
        for what, tensor in named(layer)
    }
    network.load_state_dict(state)
    with torch.no_grad():
        seen = torch.nn.functional.normalize(torch.from_numpy(embeddings).float(), dim=1)
        expected = network(seen)[:, 0].numpy()
    columns = Head(config_of(path, activation="none"))(stored(embeddings))
    assert columns["value"] == pytest.approx(expected, abs=1e-5)


def test_laions_files_are_read_as_they_are_published(tmp_path, stored):
    """torch's state dicts: `weight` and `bias` of the linear one, layers.0 to layers.7 of the MLP,
    in whatever order they stand."""
    embeddings = unit(4, 768)
    one = layers((768, 1))
    torch.save(dict(named(one[0])), tmp_path / "sa_0_4_vit_l_14_linear.pth")
    found = Head(config_of(tmp_path / "sa_0_4_vit_l_14_linear.pth"))(stored(embeddings))
    assert found["value"] == pytest.approx(by_numpy(one, embeddings, "none"), abs=1e-5)
    deep = layers(LAION)
    state = {
        f"layers.{place}.{what}": tensor
        for place, layer in reversed(list(zip(PLACES, deep, strict=True)))
        for what, tensor in named(layer)
    }
    path = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(state, path)
    found = Head(config_of(path, activation="none"))(stored(embeddings))
    assert found["value"] == pytest.approx(by_numpy(deep, embeddings, "none"), abs=1e-5)


@pytest.mark.parametrize("prefix", ["", "layers.", "model.net.", "fc", "module.mlp.linear_"])
def test_whatever_stands_before_the_numbers(tmp_path, stored, prefix):
    """Layers are told by their numbers alone."""
    made, embeddings = layers((16, 8, 1)), unit(3, 16)
    path = saved(tmp_path / "h.safetensors", made, (2, 11), prefix)
    columns = Head(config_of(path))(stored(embeddings))
    assert columns["value"] == pytest.approx(by_numpy(made, embeddings, "relu"), abs=1e-5)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ([1, 2], "a list, no state dict"),
        ({"epoch": 3, "0.weight": torch.ones(1, 4)}, "epoch is no tensor; it has epoch, 0.weight"),
        ({"head.gamma": torch.ones(4)}, "tensor head.gamma is no layer's .* it has head.gamma"),
    ],
)
def test_other_files_of_torch_are_refused(tmp_path, content, wrong):
    """The keys that were seen are named."""
    torch.save(content, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=wrong):
        Head(config_of(tmp_path / "head.pth"))


def named(layer):
    return [("weight", torch.from_numpy(layer[0])), ("bias", torch.from_numpy(layer[1]))]


def test_a_linear_head_needs_no_numbers(tmp_path, stored):
    """LAION's first predictors are one layer: `weight` and `bias`."""
    [(weight, bias)] = layers((512, 1))
    save_file({"weight": weight, "bias": bias}, tmp_path / "linear.safetensors")
    embeddings = unit(5, 512)
    columns = Head(config_of(tmp_path / "linear.safetensors"))(stored(embeddings))
    assert columns["value"] == pytest.approx(by_numpy([(weight, bias)], embeddings, "relu"))


def test_layers_stand_in_numeric_order(tmp_path, stored):
    """10 comes after 2, as numbers and not as words do."""
    made, embeddings = layers((8, 8, 8, 1)), unit(6, 8)
    path = saved(tmp_path / "head.safetensors", made, (1, 2, 10))
    columns = Head(config_of(path))(stored(embeddings))
    assert columns["value"] == pytest.approx(by_numpy(made, embeddings, "relu"), abs=1e-5)


def test_length_does_not_matter(tmp_path, stored):
    """Embeddings are L2-normalised first: any length of them gives the same value."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    embeddings = unit(4, 16).astype(np.float32)
    assert head(stored(embeddings * 7))["value"] == pytest.approx(
        head(stored(embeddings))["value"], abs=1e-6
    )


def test_weights_of_half_precision_are_read_as_float32(tmp_path, stored):
    """float16 weights are widened; what is computed is float32."""
    made = [(w.astype(np.float16), b.astype(np.float16)) for w, b in layers((16, 8, 1))]
    columns = Head(config_of(saved(tmp_path / "h.safetensors", made)))(stored(unit(4, 16)))
    assert columns["value"] == pytest.approx(by_numpy(made, unit(4, 16), "relu"), abs=1e-5)


def test_order_and_batch_size_change_nothing(tmp_path, stored, take):
    """Any order and any cut into batches give each pair the same value to 1e-5."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers(LAION), PLACES, "layers.")))
    whole = stored(unit(50, 768))
    expected = head(whole)["value"]
    order = np.random.default_rng(0).permutation(50).tolist()
    parts = [head(take(whole, order[at : at + 7]))["value"] for at in range(0, 50, 7)]
    assert [v for part in parts for v in part] == pytest.approx(
        [expected[row] for row in order], abs=1e-5
    )


def test_captions_change_nothing(tmp_path, batch_of):
    """A score of the image is the same with any caption, or none."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    embeddings = list(unit(3, 16))
    first = head(batch_of(["a", "b", "c"], [None] * 3, image_emb=embeddings))
    second = head(batch_of([None, "", "x" * 10_000_000], [None] * 3, image_emb=embeddings))
    assert first == second


def test_pairs_without_an_embedding_have_an_error(tmp_path, stored):
    """No embedding, NaN and zero are errors, never a value; their neighbours keep theirs."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    good = unit(2, 16)
    rows = [None, good[0].tolist(), np.full(16, np.nan), np.zeros(16), good[1]]
    columns = head(stored(rows))
    assert columns["error"] == [
        "not scored by clip: undecodable image",
        None,
        "the embedding of clip is no direction",
        "the embedding of clip is no direction",
        None,
    ]
    assert [value is None for value in columns["value"]] == [True, False, True, True, False]
    alone = head(stored(good))["value"]
    assert [columns["value"][1], columns["value"][4]] == pytest.approx(alone, abs=1e-6)


def test_a_batch_of_nothing_keeps_its_columns(tmp_path, stored):
    """Empty batches and batches of errors alone have columns of their length."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    assert head(stored([])) == {"value": [], "error": []}
    assert head(stored([None, None]))["value"] == [None, None]


def test_values_fit_their_table(tmp_path, stored):
    """The column is that of scores_aesthetic, null where there is no embedding."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    batch = stored([None, *unit(2, 16)])
    assert [v is None for v in to_table(batch, head(batch), "head")["value"].to_pylist()] == [
        True,
        False,
        False,
    ]


def test_another_models_embeddings_are_refused(tmp_path, stored):
    """Embeddings of the wrong length name both lengths, the scorer and the file."""
    path = saved(tmp_path / "h.safetensors", layers(LAION), PLACES, "layers.")
    clear = r"scorer aesthetic: embeddings of scorer b32 have 512 values, .* expects 768; set `of`"
    with pytest.raises(ValueError, match=clear) as found:
        Head(config_of(path, of="b32"))(stored([None, *unit(2, 512)]))
    assert str(path) in str(found.value)


def test_a_batch_without_embeddings_is_refused(tmp_path, batch_of):
    """Without the column the error names it."""
    head = Head(config_of(saved(tmp_path / "h.safetensors", layers((16, 4, 1)))))
    with pytest.raises(ValueError, match="scorer aesthetic: needs the batch column image_emb"):
        head(batch_of(["a"], [None]))


def test_values_that_are_no_numbers_are_errors(tmp_path, stored):
    """Weights that overflow give an error, not an infinite value."""
    made = [(np.full((1, 16), 3e38, np.float32), np.zeros(1, np.float32))]
    columns = Head(config_of(saved(tmp_path / "h.safetensors", made)))(stored([np.ones(16)]))
    assert columns == {"value": [None], "error": ["the head gives no finite value"]}


ONE = np.ones((1, 4), np.float32)
FOUR = np.ones((4, 4), np.float32)
BIAS = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("tensors", "wrong"),
    [
        ({}, "layers of 0 networks"),
        ({"0.weight": ONE, "1.running_mean": BIAS}, "tensor 1.running_mean is no layer's"),
        ({"0.weight": FOUR, "1.weight": np.ones(4, np.float32)}, "layer 1 has no weight of shape"),
        ({"0.bias": BIAS}, "layer 0 has no weight of shape"),
        ({"0.weight": ONE, "0.bias": np.ones(3, np.float32)}, r"1 outputs, bias \(3,\)"),
        (
            {"0.weight": FOUR, "2.weight": np.ones((1, 3), np.float32)},
            "a layer gives 4 values, the next takes 3",
        ),
        ({"0.weight": FOUR}, "it has 4 outputs, must have 1"),
        ({"a.0.weight": ONE, "b.0.weight": ONE}, "layers of 2 networks: a.0.weight, b.0.weight"),
        ({"weight": ONE, "0.weight": ONE}, "layers of 2 networks: 0.weight, weight"),
    ],
)
def test_files_that_are_no_head_are_refused(tmp_path, tensors, wrong):
    """Every tensor must have its use and fit its neighbours; the error says which does not."""
    path = tmp_path / "head.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=wrong) as found:
        Head(config_of(path))
    assert f"scorer aesthetic: no head in {path} (" in str(found.value)
    assert "0.weight (out, in)" in str(found.value)


def test_pickles_and_missing_files_are_refused(tmp_path):
    """A file of torch that has more than tensors is refused and nothing in it is run."""
    opened = tmp_path / "opened"
    torch.save(Trap(str(opened)), tmp_path / "head.pth")
    for name in ("head.pth", "nowhere.safetensors"):
        path = tmp_path / name
        with pytest.raises(ValueError, match=f"no head in {re.escape(str(path))}") as found:
            Head(config_of(path))
        assert "\n" not in str(found.value)
    assert not opened.exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")
