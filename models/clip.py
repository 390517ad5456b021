"""Small open_clip models by their sizes, and InfoNCE that knows which pairs are no negatives of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Model = Any  # open_clip.CLIP, which has no types

HEAD_WIDTH = 64  # CLIP, table 19


def small_clip(  # noqa: PLR0913 - sizes, by keyword
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
    """An untrained open_clip CLIP: a ViT and a causal text transformer, read at the highest token id of a text.

    Sizes in pixels, channels, layers and tokens. Heads are 64 wide where that divides the width, else there is one.
    Initialised from torch's global generator: fork and seed it first. Raises ValueError where patches do not tile.
    """
    import open_clip

    if image_size % patch_size:
        raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}: choose one that is")
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
    return open_clip.CLIP(embed_dim=embed_dim, vision_cfg=vision, text_cfg=text)


def info_nce(image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (CLIP, figure 3) as a scalar; with `same` None it is open_clip's ClipLoss.

    image_emb, text_emb: (n, d), L2-normalised, row i of both is one pair. logit_scale: 1 / temperature.
    same: (n, n) bool, True where pairs i and j share a caption or an image. Such a j is neither the target of i nor
    a negative: it is left out of i's denominators. The diagonal is always kept.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logit_scale * image_emb @ text_emb.T
    own = torch.arange(len(logits), device=logits.device)
    if same is not None:
        others = same.clone().fill_diagonal_(False)
        logits = logits.masked_fill(others, float("-inf"))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
