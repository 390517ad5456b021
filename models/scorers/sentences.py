"""Sentence embeddings by any encoder of transformers, by hub name or path: the mean of its last
hidden states over the text's tokens, at unit length (Reimers and Gurevych, 2019; all-MiniLM-L6-v2
is used so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.scorers.fitting import Fitting
from models.scorers.pairs import Array, one_line
from models.weights import dtype_of, refuse_untrained
from schemas.configs import SieveScorer
from schemas.tables import clean

if TYPE_CHECKING:
    from torch import Tensor


class Sentences:
    """Texts in, unit vectors out, on the GPU where there is one."""

    def __init__(self, config: SieveScorer) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = load(config, self.device.type)
        self.fitting = Fitting(config.batch_size)
        longest = getattr(self.model.config, "max_position_embeddings", config.max_text_tokens)
        self.longest = min(config.max_text_tokens, longest, self.tokenizer.model_max_length)
        self.dim = int(self.model.config.hidden_size)

    def __call__(self, texts: Sequence[str]) -> Array:
        """float32 (n, d) of n texts; the tokens after `max_text_tokens` are not read."""
        import torch

        found = np.empty((len(texts), self.dim), np.float32)
        if not texts:
            return found
        ids = self.tokenizer(
            [clean(text) for text in texts], truncation=True, max_length=self.longest
        )["input_ids"]
        order = sorted(range(len(texts)), key=lambda place: len(ids[place]))  # little padding
        with torch.inference_mode():
            parts = self.fitting(lambda some: self._encode([ids[place] for place in some]), order)
        found[order] = torch.cat(parts).cpu().numpy()
        return found

    def _encode(self, ids: Sequence[Sequence[int]]) -> Tensor:
        from torch.nn.functional import normalize

        padded = self.tokenizer.pad(
            {"input_ids": [list(own) for own in ids]}, padding=True, return_tensors="pt"
        ).to(self.device)
        mask = padded["attention_mask"]
        hidden = self.model(input_ids=padded["input_ids"], attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        return normalize((hidden.float() * weights).sum(dim=1) / weights.sum(dim=1), dim=-1)


def load(config: SieveScorer, device: str) -> tuple[Any, Any]:
    """Encoder in eval mode and its tokenizer. Raises ValueError with the name and the remedy; never
    gives untrained weights.
    """
    from transformers import AutoModel, AutoTokenizer

    dtype = dtype_of(config.precision, device)
    try:
        model, info = AutoModel.from_pretrained(
            config.encoder, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(config.encoder, trust_remote_code=False)
        refuse_untrained(model, info, unused="pooler.")
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ValueError(
            f"scorer {config.name}: encoder {config.encoder} cannot be loaded ({one_line(error)}); "
            "it must be a text encoder, such as sentence-transformers/all-MiniLM-L6-v2; with no "
            "hub in reach give the path of a folder that `save_pretrained` wrote, with the model "
            "and its tokenizer"
        ) from error
    return model.to(device).eval(), tokenizer
