"""Weights of transformers checkpoints: the numbers they are held in, and whether all are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.clip import precision_of


def dtype_of(precision: str, device: str) -> Any:
    """The torch dtype of a config's `precision`; see models.clip.precision_of."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return types[precision_of(precision, device)]


def refuse_untrained(model: Any, info: Mapping[str, Any], unused: str | None = None) -> None:
    """Raises ValueError with the parameters that a checkpoint had no weights for.

    info: what `from_pretrained` gives with `output_loading_info`. unused: the beginning of names
    that do not matter.
    """
    lost = {str(key) for key in (*info["missing_keys"], *info["mismatched_keys"])}
    named = [name for name, _ in model.named_parameters() if name in lost]
    if unused is not None:
        named = [name for name in named if not name.startswith(unused)]
    if named:
        raise ValueError(f"no weights for {', '.join(sorted(named))}")
