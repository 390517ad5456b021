import socket

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from models.patches import patch_encoder, side_of
from schemas.configs import OpenClipEncoder, TimmEncoder, TransformersEncoder, VitEncoder
from tests.stored import tiny_clip

VIT = VitEncoder(image_size=32, patch_size=8, width=32, layers=1)
TIMM = "test_vit"  # timm's own smallest: 160 px, patch 16
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function kind -> config of a tiny random checkpoint of that kind."""
    return lambda kind: _save(kind, tmp_path_factory.mktemp(kind))


def _save(kind: str, folder):
    import transformers

    if kind == "open_clip":
        return OpenClipEncoder(model=str(tiny_clip(folder)))
    if kind == "timm":
        file = folder / "model.safetensors"
        save_file(timm.create_model(TIMM).state_dict(), file)
        return TimmEncoder(model=TIMM, pretrained=str(file))
    if kind == "clip":
        text = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
        config = transformers.CLIPConfig(vision_config=SIZES, text_config=text)
        transformers.CLIPModel(config).save_pretrained(folder)
    elif kind == "resnet":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        transformers.ResNetModel(config).save_pretrained(folder)
    elif kind == "deit":
        transformers.DeiTModel(transformers.DeiTConfig(**SIZES)).save_pretrained(folder)
        images = transformers.CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[1, 2, 3])
        images.save_pretrained(folder)
    else:
        transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(folder)
    return TransformersEncoder(model=str(folder))


def pixels(side: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (2, side, side, 3), np.uint8))


KINDS = {  # length, side
    "open_clip": (4, 32),
    "timm": (100, 160),
    "clip": (16, 32),
    "vit": (16, 32),
    "deit": (16, 32),
    "resnet": (784, 224),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_library_gives_a_vector_per_patch(saved, kind: str):
    """Without class and distillation tokens; without weights it takes saved ones."""
    config, (length, side) = saved(kind), KINDS[kind]
    encoder = patch_encoder(config).eval()
    assert (encoder.length, encoder.side, side_of(config)) == (length, side, side)
    with torch.inference_mode():
        found = encoder(pixels(side))
        assert found.shape == (2, length, encoder.width)
        again = patch_encoder(config, pretrained=False).eval()
        assert not torch.allclose(again(pixels(side)), found, atol=1e-3)
        again.load_state_dict(encoder.state_dict())
        assert torch.allclose(again(pixels(side)), found, atol=1e-5)


def test_a_small_one_is_built_from_scratch():
    """No weights are asked for, and gradients reach all that is trained."""
    encoder = patch_encoder(VIT)
    assert (encoder.length, encoder.width, side_of(VIT)) == (16, 32, 32)
    encoder(pixels(32)).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_patches_are_in_reading_order():
    """A changed corner changes its own patch most: the first is the top left, the last the bottom
    right.
    """
    encoder, plain = patch_encoder(VIT).eval(), pixels(32)[:1]
    first, last = slice(0, 8), slice(24, 32)
    changed = {0: (first, first), 3: (first, last), 15: (last, last)}
    for place, (rows, columns) in changed.items():
        other = plain.clone()
        other[0, rows, columns] = 255 - other[0, rows, columns]
        with torch.inference_mode():
            moved = (encoder(other) - encoder(plain))[0].norm(dim=1)
        assert int(moved.argmax()) == place


def test_pixels_are_normalised_as_the_checkpoint_says(saved):
    """By the mean and deviation of its processor's file."""
    encoder = patch_encoder(saved("deit"))
    assert encoder.mean.flatten().tolist() == pytest.approx([25.5, 51, 76.5])
    assert encoder.std.flatten().tolist() == pytest.approx([255, 510, 765])


@pytest.mark.parametrize(
    "config",
    [
        OpenClipEncoder(model="hf-hub:nobody/nothing"),
        OpenClipEncoder(model="ViT-B-32", pretrained="laion2b_s34b_b79k"),
        TransformersEncoder(model="nobody/nothing"),
        TimmEncoder(model=TIMM),
        TimmEncoder(model=TIMM, pretrained="/nowhere.safetensors"),
        TimmEncoder(model="no_such_model"),
    ],
    ids=lambda c: f"{c.kind}-{c.model}",
)
def test_what_is_out_of_reach_is_one_clear_line(no_hub, monkeypatch, config):
    """The error names the model and says what to give instead."""

    def refuse(*_, **__):
        raise OSError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ValueError, match=rf"{config.model} .*cannot be loaded.*path") as caught:
        patch_encoder(config)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_are_refused(tmp_path, saved):
    """A checkpoint without some of the weights would be an untrained model in part."""
    state = timm.create_model(TIMM).state_dict()
    lacking = {n: t for n, t in state.items() if not n.startswith("blocks.0")}
    save_file(lacking, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"no weights for blocks\.0"):
        patch_encoder(TimmEncoder(model=TIMM, pretrained=str(tmp_path / "half.safetensors")))


def test_pickles_are_refused(tmp_path):
    """A checkpoint that would run code when it is read is not read."""

    class Evil:
        def __reduce__(self) -> object:
            return (print, ("owned",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be loaded"):
        patch_encoder(TimmEncoder(model=TIMM, pretrained=str(tmp_path / "evil.pth")))
