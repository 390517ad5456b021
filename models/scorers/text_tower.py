"""Captions through open_clip's text tower, no further than they are long.

A causal transformer that is read at a text's end token does not see what comes after it, so a batch
needs the tokens up to its longest text only: captions of the web are 10 to 20 tokens, the context
is 77. Texts are sorted by length first, so that a batch's longest is near to all. Other towers
(SigLIP's, Hugging Face's, CoCa's) read the padding too and run in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STEP = 16  # tokens: texts of one batch are of one such step, so that one long text costs itself


class TextTower:
    """A model's texts to embeddings: tokens (n, context) in, (n, d) out, not normalised."""

    def __init__(self, model: Any, device: Any) -> None:
        self.model, self.device = model, device
        self.tower = causal_tower(model)

    def batches(self, tokens: Tensor, rows: int) -> list[list[int]]:
        """The texts in batches of at most `rows`, alike in length where that saves something."""
        if self.tower is None:
            everything = list(range(len(tokens)))
            return [everything[at : at + rows] for at in range(0, len(tokens), rows)]
        return by_length(ends_of(self.tower, tokens).tolist(), rows)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Encode one batch."""
        if self.tower is None:
            encoded: Tensor = self.model.encode_text(tokens.to(self.device))
            return encoded
        ends = ends_of(self.tower, tokens)
        needed = tokens[:, : int(ends.max()) + 1].to(self.device)
        return encode_to_end(self.tower, needed, ends.to(self.device))


def causal_tower(model: Any) -> Any:
    """The transformer of a CLIP that is causal and read at the end token; None of any other."""
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    tower = model.text if type(model) is CustomTextCLIP else model
    if type(tower) not in (CLIP, TextTransformer) or getattr(tower, "cls_emb", None) is not None:
        return None
    causal = getattr(tower, "attn_mask", None) is not None
    return tower if causal and _pooling(tower)[0] in ("argmax", "eos") else None


def _pooling(tower: Any) -> tuple[str, int]:
    """Where a text is read, by open_clip's names: (pool type, id of the end token)."""
    if hasattr(tower, "text_pool_type"):
        return tower.text_pool_type, tower.text_eos_id
    return tower.pool_type, tower.eos_id


def ends_of(tower: Any, tokens: Tensor) -> Tensor:
    """The position that each text is read at, as open_clip's text_global_pool has it."""
    kind, end = _pooling(tower)
    return (tokens if kind == "argmax" else (tokens == end).int()).argmax(dim=-1)


def by_length(ends: Sequence[int], rows: int) -> list[list[int]]:
    """Places of the texts, shortest first, in batches of at most `rows` and of one STEP."""
    found: list[list[int]] = []
    for place in sorted(range(len(ends)), key=lambda place: ends[place]):
        same = found and len(found[-1]) < rows and ends[found[-1][0]] // STEP == ends[place] // STEP
        if same:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def encode_to_end(tower: Any, tokens: Tensor, ends: Tensor) -> Tensor:
    """open_clip's encode_text on the first tokens alone: (n, length) -> (n, d)."""
    import torch

    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    read: Tensor = tower.ln_final(x[torch.arange(len(x), device=x.device), ends])
    if tower.text_projection is not None:
        linear = isinstance(tower.text_projection, torch.nn.Linear)
        read = tower.text_projection(read) if linear else read @ tower.text_projection
    return read
