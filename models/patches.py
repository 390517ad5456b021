"""Image encoders that give a vector for each patch: small ones from scratch, pretrained ones of
open_clip, transformers and timm by name or path.

All take pixels as uint8 and normalise them as their weights were trained; class and register tokens
are left out, feature maps of convolutions are read row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError  # with which torch.load(weights_only=True) refuses a checkpoint
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.clip import HEAD_WIDTH, MAX_ERROR, load_pretrained
from models.weights import refuse_untrained
from schemas.configs import (
    EncoderConfig,
    OpenClipEncoder,
    TimmEncoder,
    TransformersEncoder,
    VitEncoder,
)

if TYPE_CHECKING:
    from torch import Tensor

Features = Callable[[Any, "Tensor"], "Tensor"]  # (trunk, normalised pixels) -> (n, length, width)
HALF = (0.5, 0.5, 0.5)
MAP = 4  # dimensions of a feature map: images, channels, height, width


class PatchEncoder(nn.Module):
    """uint8 pixels (n, side, side, 3) -> patch vectors (n, length, width)."""

    def __init__(
        self, trunk: Any, features: Features, side: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.trunk, self.features, self.side = trunk, features, side
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        with torch.inference_mode():
            was = self.training
            shape = self.eval()(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape
            self.train(was)
        self.length, self.width = int(shape[1]), int(shape[2])

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.features(self.trunk, (pixels - self.mean) / self.std)


def patch_encoder(config: EncoderConfig, pretrained: bool = True) -> PatchEncoder:
    """The encoder of a config; `pretrained` False builds it for weights that are at hand.

    Initialised from torch's global generator: fork and seed it first. Raises ValueError in one line
    that names the model and the remedy, where it cannot be had or is none that looks at images.
    """
    match config:
        case VitEncoder():
            return _vit(config)
        case OpenClipEncoder():
            return _open_clip(config, pretrained)
        case TransformersEncoder():
            return _told(config.model, lambda: _transformers(config, pretrained))
        case TimmEncoder():
            return _told(config.model, lambda: _timm(config, pretrained))


def side_of(config: EncoderConfig) -> int:
    """Pixels of the square images that an encoder takes. Raises as `patch_encoder` does."""
    if isinstance(config, VitEncoder):
        return config.image_size
    with torch.random.fork_rng(devices=[]):
        return patch_encoder(config, pretrained=False).side


def _told(model: str, build: Callable[[], PatchEncoder]) -> PatchEncoder:
    try:
        return build()
    except (RuntimeError, OSError, ValueError, AttributeError, UnpicklingError) as error:
        raise ValueError(
            f"encoder {model} cannot be loaded ({' '.join(str(error).split())[:MAX_ERROR]}); "
            "with no hub in reach give the path of its weights, or `encoder: {kind: vit}`"
        ) from error


# ------------------------------------------------------------------------------------ from scratch


def _vit(config: VitEncoder) -> PatchEncoder:
    from open_clip.transformer import VisionTransformer

    width = config.width
    trunk = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=width,
        layers=config.layers,
        heads=width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1,
        mlp_ratio=4.0,
        output_dim=1,
    )
    trunk.proj = None  # of what is pooled, which nobody looks at
    return PatchEncoder(trunk, _tokens, config.image_size, HALF, HALF)


def _tokens(trunk: Any, pixels: Tensor) -> Tensor:
    """open_clip's VisionTransformer: its pooling gives the patch tokens beside the pooled one."""
    trunk.output_tokens = True
    tokens: Tensor = trunk(pixels)[1]
    return tokens


# ------------------------------------------------------------------------------------ by name


def _open_clip(config: OpenClipEncoder, pretrained: bool) -> PatchEncoder:
    import open_clip

    if pretrained:
        model = load_pretrained(config.model, config.pretrained)[0]
    else:
        local = Path(config.model).is_dir()
        name = f"local-dir:{config.model}" if local else config.model
        model = open_clip.create_model(name, load_weights=False)
    visual = model.visual
    side = visual.image_size
    side = int(side[0] if isinstance(side, Sequence) else side)
    plain = hasattr(visual, "output_tokens")
    mean, std = (getattr(visual, f"image_{name}") or HALF for name in ("mean", "std"))
    return PatchEncoder(visual, _tokens if plain else _last_map, side, mean, std)


def _last_map(trunk: Any, pixels: Tensor) -> Tensor:
    """Trunks of convolutions, and timm's: the last of the intermediate feature maps."""
    found = trunk.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, intermediates_only=True
    )
    last: Tensor = found["image_intermediates"][-1]
    return _rows(last)


def _transformers(config: TransformersEncoder, pretrained: bool) -> PatchEncoder:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    if pretrained:
        model, info = AutoModel.from_pretrained(
            config.model, trust_remote_code=False, output_loading_info=True
        )
    else:
        model = AutoModel.from_config(AutoConfig.from_pretrained(config.model))
    vision = getattr(model, "vision_model", model)
    if pretrained:
        here = "" if vision is model else "vision_model."
        lost = [name for name in (*info["missing_keys"],) if name.startswith(here)]
        refuse_untrained(model, {**info, "missing_keys": lost}, unused=f"{here}pooler")
    side = getattr(vision.config, "image_size", None) or 224
    side = int(side[0] if isinstance(side, Sequence) else side)
    try:
        prepare = AutoImageProcessor.from_pretrained(config.model)
        mean, std = prepare.image_mean or HALF, prepare.image_std or HALF
    except (OSError, ValueError):  # a folder of the model alone
        mean, std = HALF, HALF
    return PatchEncoder(vision, _hidden, side, mean, std)


def _hidden(trunk: Any, pixels: Tensor) -> Tensor:
    """The last hidden state, without the tokens that stand before the patches."""
    hidden: Tensor = trunk(pixel_values=pixels).last_hidden_state
    if hidden.dim() == MAP:
        return _rows(hidden)
    patch = getattr(trunk.config, "patch_size", None)
    grid = hidden.shape[1] if not patch else (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
    return hidden[:, -grid:]


def _timm(config: TimmEncoder, pretrained: bool) -> PatchEncoder:
    import timm

    path = config.pretrained if pretrained else None
    if path is not None and not Path(path).is_file():
        raise ValueError(f"pretrained {path!r} is no file")
    trunk: Any = timm.create_model(
        config.model, pretrained=pretrained and path is None, num_classes=0
    )
    if path is not None:
        loaded = timm.models.load_state_dict(path, weights_only=True)
        lost = trunk.load_state_dict(loaded, strict=False).missing_keys
        refuse_untrained(trunk, {"missing_keys": lost, "mismatched_keys": []})
    said = trunk.pretrained_cfg
    side = int(said["input_size"][1])
    return PatchEncoder(trunk, _timm_features, side, said["mean"], said["std"])


def _timm_features(trunk: Any, pixels: Tensor) -> Tensor:
    found: Tensor = trunk.forward_features(pixels)
    if found.dim() == MAP:  # Swin and its like have channels last
        last = found.shape[-1] == trunk.num_features and found.shape[1] != trunk.num_features
        return found.flatten(1, 2) if last else _rows(found)
    return found[:, getattr(trunk, "num_prefix_tokens", 0) :]


def _rows(found: Tensor) -> Tensor:
    """A feature map (n, width, height, width) as (n, patches, width)."""
    return found.flatten(2).transpose(1, 2)
