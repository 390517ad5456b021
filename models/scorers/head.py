"""A linear or MLP head on a scorer's stored image embeddings, from a safetensors or torch file.

Files are read as they are published: LAION's linear `sa_0_4_vit_l_14_linear.pth` (weight, bias) and
the improved predictor's `sac+logos+ava1-l14-linearMSE.pth` (layers.0.weight to layers.7.bias, over
CLIP ViT-L/14 of OpenAI, `activation: none`), or an NSFW head (`relu`, `output: sigmoid`). Of a
torch file nothing but tensors is unpickled.

Such heads read L2-normalised embeddings: the stored ones are normalised again in float32, since
rounding to float16 has scaled them. Dropout does nothing here.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from models.base import Batch, Columns
from models.scorers.pairs import Array, one_line, spread
from models.scorers.stored import directions
from schemas.configs import HeadScorer

NUMBER = re.compile(r"\d+$")  # of a layer, in layers.0 or fc1
KEYS = 8  # named in an error
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

    try:
        layers = _layers(_read(Path(config.weights)))
    except (OSError, SafetensorError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"scorer {config.name}: no head in {config.weights} ({one_line(error)}); it must be a "
            "safetensors file, or a state dict that torch saved, with 0.weight (out, in), "
            "0.bias (out), 2.weight ... to 1 output"
        ) from error
    return layers


def _read(path: Path) -> dict[str, Any]:
    """The tensors of a file by their names."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, no state dict")
    strange = [k for k, v in found.items() if not (isinstance(k, str) and torch.is_tensor(v))]
    if strange:
        raise ValueError(f"{strange[0]} is no tensor; it has {_some(found)}")
    return found


def _some(tensors: dict[str, Any]) -> str:
    return ", ".join([*map(str, tensors)][:KEYS]) + (" ..." if len(tensors) > KEYS else "")


def _layers(tensors: dict[str, Any]) -> list[Layer]:
    import torch

    named: dict[int, dict[str, Any]] = {}
    prefixes = set()
    for name, tensor in tensors.items():
        place, _, what = name.rpartition(".")
        if what not in ("weight", "bias"):
            raise ValueError(f"tensor {name} is no layer's weight or bias; it has {_some(tensors)}")
        number = NUMBER.search(place)
        prefixes.add((NUMBER.sub("", place), number is None))
        at = int(number[0]) if number else 0
        named.setdefault(at, {})[what] = tensor.detach().to(torch.float32)
    if not named or len(prefixes) > 1:
        raise ValueError(f"layers of {len(prefixes)} networks: {_some(tensors)}")
    layers = []
    for at, layer in sorted(named.items()):
        weight = layer.get("weight")
        if weight is None or weight.ndim != 2:  # noqa: PLR2004 - out and in
            raise ValueError(f"layer {at} has no weight of shape (out, in)")
        bias = layer.get("bias", torch.zeros(len(weight)))
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"layer {at}: {len(weight)} outputs, bias {tuple(bias.shape)}")
        layers.append((weight, bias))
    for (before, _), (after, _) in pairwise(layers):
        if len(before) != after.shape[1]:
            raise ValueError(f"a layer gives {len(before)} values, the next takes {after.shape[1]}")
    if len(layers[-1][0]) != 1:
        raise ValueError(f"it has {len(layers[-1][0])} outputs, must have 1")
    return layers
