"""open_clip models, small by their sizes or pretrained, and InfoNCE that knows which pairs are no
negatives of each other."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError  # with which torch.load(weights_only=True) refuses a checkpoint
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Model = Any  # open_clip.CLIP, which has no types

HEAD_WIDTH = 64  # CLIP, table 19
MAX_ERROR = 200  # characters of a library's message


def small_clip(
    *,
    vocab_size: int,
    context_length: int,
    image_size: int,
    patch_size: int,
    width: int,
    layers: int,
    text_width: int,
    text_layers: int,
    embed_dim: int,
) -> Model:
    """An untrained open_clip CLIP: a ViT and a causal text transformer, read at the highest token
    id of a text; with `text_layers` 0 a bag of words instead (models.bag_clip).

    Sizes in pixels, channels, layers and tokens. Heads are 64 wide where that divides the width,
    else there is one. Initialised from torch's global generator: fork and seed it first. Raises
    ValueError where patches do not tile.
    """
    if image_size % patch_size:
        raise ValueError(
            f"image_size {image_size} is no multiple of patch_size {patch_size}: choose one that is"
        )
    vision = {
        "image_size": image_size,
        "patch_size": patch_size,
        "width": width,
        "layers": layers,
        "head_width": HEAD_WIDTH if width % HEAD_WIDTH == 0 else width,
    }
    text = {
        "vocab_size": vocab_size,
        "context_length": context_length,
        "width": text_width,
        "layers": text_layers,
        "heads": text_width // HEAD_WIDTH if text_width % HEAD_WIDTH == 0 else 1,
    }
    return from_config({"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text})


def from_config(config: dict[str, Any]) -> Model:
    """An untrained model from open_clip's config of it; `text_cfg.layers` 0 is a bag of words."""
    import open_clip

    text = config["text_cfg"]
    if text.get("layers") == 0:
        from models.bag_clip import BagClip

        vision, words, length = config["vision_cfg"], text["vocab_size"], text["context_length"]
        return BagClip(config["embed_dim"], vision, words, length)
    return open_clip.CLIP(**config)


def info_nce(
    image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor, same: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE (CLIP, figure 3) as a scalar; with `same` None it is open_clip's ClipLoss.

    image_emb, text_emb: (n, d), L2-normalised, row i of both is one pair. logit_scale: 1 /
    temperature. same: (n, n) bool, True where pairs i and j share a caption or an image. Such a j
    is neither the target of i nor a negative: it is left out of i's denominators. The diagonal is
    always kept.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logit_scale * image_emb @ text_emb.T
    own = torch.arange(len(logits), device=logits.device)
    if same is not None:
        others = same.clone().fill_diagonal_(False)
        logits = logits.masked_fill(others, float("-inf"))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def precision_of(wanted: str, device: str) -> str:
    """`auto` is bf16 on a GPU that has it, else fp32; anything else is taken as it is."""
    import torch

    if wanted != "auto":
        return wanted
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def load_pretrained(
    model: str, pretrained: str | None, precision: str = "fp32", device: str = "cpu"
) -> tuple[Model, Any, Any]:
    """An open_clip model in eval mode, its image transform and its tokenizer.

    model: architecture, hf-hub:org/name, or a folder with open_clip_config.json and weights.
    pretrained: tag or checkpoint path of an architecture. Pickles are refused (weights_only).
    Raises ValueError that names the model and the remedy; never gives untrained weights.
    """
    import open_clip
    from safetensors import SafetensorError

    name = f"local-dir:{model}" if Path(model).is_dir() else model
    tag = None if ":" in name else pretrained  # models with a scheme bring their weights
    try:
        loaded, _, transform = open_clip.create_model_and_transforms(
            name,
            tag,
            precision=precision,
            device=device,
            require_pretrained=True,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, OSError, ValueError, UnpicklingError, SafetensorError) as error:
        weights = f" with pretrained {tag}" if tag else ""
        raise ValueError(
            f"model {model}{weights} cannot be loaded "
            f"({' '.join(str(error).split())[:MAX_ERROR]}); "
            "with no hub in reach give the path of a checkpoint as `pretrained`, "
            "or a folder with open_clip_config.json and weights as `model`"
        ) from error
    return loaded.eval(), transform, tokenizer
