"""A linear or MLP head on a scorer's stored image embeddings, from a safetensors file.

Such as LAION's aesthetic predictor: 768-1024-128-64-16-1 over CLIP ViT-L/14 of OpenAI, with nothing
between its layers (`activation: none`), LAION's linear aesthetic heads, or an NSFW head (`relu`,
`output: sigmoid`). Such heads read L2-normalised embeddings: the stored ones are normalised again
in float32, so that their rounding to float16 does not scale them. Dropout does nothing here.

Files of torch are pickles and are not read. To convert one that is trusted, once:
`safetensors.torch.save_file(torch.load(path, weights_only=True), "head.safetensors")`.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from models.base import Batch, Columns
from models.scorers.pairs import Array, one_line, spread
from models.scorers.stored import directions
from schemas.configs import HeadScorer

# 0.weight, layers.0.weight, and weight alone for a head of one layer
LAYER = re.compile(r"(?:(?P<prefix>[\w.]*?)\.)?(?P<number>\d+)\.(?P<what>weight|bias)|weight|bias")
Layer = tuple[Any, Any]  # weight (out, in) and bias (out,), float32 tensors


class Head:
    """One matrix product per layer, in float32 on the CPU: the heads have a million weights."""

    def __init__(self, config: HeadScorer) -> None:
        self.config = config
        self.layers = load_layers(config)
        self.dim = int(self.layers[0][0].shape[1])

    def __call__(self, batch: Batch) -> Columns:
        expected = (
            f"the head in {self.config.weights} expects {self.dim}; set `of` to a scorer with the "
            "model that the head was trained on"
        )
        embeddings, rows, errors = directions(
            batch, self.config.name, self.config.of, self.dim, expected
        )
        values = [value if math.isfinite(value) else None for value in self._values(embeddings)]
        for row, value in zip(rows, values, strict=True):
            errors[row] = None if value is not None else "the head gives no finite value"
        return {"value": spread(values, rows, len(batch)), "error": errors}

    def _values(self, embeddings: Array) -> list[float]:
        """(m,) of L2-normalised (m, d)."""
        import torch
        from torch.nn import functional as F

        known: dict[str, Any] = {"relu": F.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}
        between = known.get(self.config.activation, lambda x: x)
        last = known.get(self.config.output, lambda x: x)
        with torch.inference_mode():
            x = torch.from_numpy(embeddings)
            for weight, bias in self.layers[:-1]:
                x = between(F.linear(x, weight, bias))
            values: list[float] = last(F.linear(x, *self.layers[-1]))[:, 0].tolist()
        return values


def load_layers(config: HeadScorer) -> list[Layer]:
    """The layers in numeric order. Raises ValueError with the file, what is wrong in it and what
    would be right; every tensor must have its use.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(Path(config.weights))
        layers = _layers(tensors)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"scorer {config.name}: no head in {config.weights} ({one_line(error)}); it must be a "
            "safetensors file with 0.weight (out, in), 0.bias (out), 2.weight ... to 1 output"
        ) from error
    return layers


def _layers(tensors: dict[str, Any]) -> list[Layer]:
    import torch

    named: dict[int, dict[str, Any]] = {}
    prefixes = set()
    for name, tensor in tensors.items():
        found = LAYER.fullmatch(name)
        if found is None:
            raise ValueError(f"tensor {name} is no layer's weight or bias")
        prefixes.add((found["prefix"], found["number"] is None))
        layer = named.setdefault(int(found["number"] or 0), {})
        layer[found["what"] or name] = tensor.to(torch.float32)
    if not named or len(prefixes) > 1:
        raise ValueError(f"layers of {len(prefixes)} networks: {', '.join(sorted(tensors))}")
    layers = []
    for number, layer in sorted(named.items()):
        weight = layer.get("weight")
        if weight is None or weight.ndim != 2:  # noqa: PLR2004 - out and in
            raise ValueError(f"layer {number} has no weight of shape (out, in)")
        bias = layer.get("bias", torch.zeros(len(weight)))
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"layer {number}: {len(weight)} outputs, bias {tuple(bias.shape)}")
        layers.append((weight, bias))
    for (before, _), (after, _) in pairwise(layers):
        if len(before) != after.shape[1]:
            raise ValueError(f"a layer gives {len(before)} values, the next takes {after.shape[1]}")
    if len(layers[-1][0]) != 1:
        raise ValueError(f"it has {len(layers[-1][0])} outputs, must have 1")
    return layers
