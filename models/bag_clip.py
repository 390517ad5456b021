"""A CLIP whose text tower is a bag of words: the lightest that can judge captions of a small pool.

On a few thousand short captions a transformer spends its capacity on memorising them; the sum of
word vectors generalises better and costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch.nn import init
from torch.nn.functional import normalize as unit

from models.vocabulary import FIRST_WORD

WORD_STD = 0.05


class BagClip(open_clip.CLIP):  # type: ignore[misc]  # open_clip has no types
    """open_clip's image tower beside one vector per word of a models.vocabulary.Vocabulary.

    A text's embedding is the sum of its words' vectors over the root of their number; padding,
    unknown words and the marks of start and end say nothing.
    """

    def __init__(
        self, embed_dim: int, vision_cfg: dict[str, Any], vocab_size: int, context_length: int
    ) -> None:
        text = {"vocab_size": vocab_size, "context_length": context_length, "width": embed_dim}
        text |= {"heads": 1, "layers": 1}
        super().__init__(embed_dim=embed_dim, vision_cfg=vision_cfg, text_cfg=text)
        for name in ("transformer", "positional_embedding", "ln_final", "text_projection"):
            delattr(self, name)
        init.normal_(self.token_embedding.weight, std=WORD_STD)

    def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Token ids (n, context) -> (n, embed_dim)."""
        is_word = (text >= FIRST_WORD) & (text < self.vocab_size - 2)
        total = (self.token_embedding(text) * is_word[..., None]).sum(1)
        features: torch.Tensor = total / is_word.sum(1, keepdim=True).clamp(min=1).sqrt()
        return unit(features, dim=-1) if normalize else features
