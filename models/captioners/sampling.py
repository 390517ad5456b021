"""Sampling of text that does not depend on what else is in the batch.

The Gumbel-max trick: the arg max of log p plus Gumbel noise is a sample of p. Each caption draws
its noise from its own stream, seeded by (seed, uid, index), so that greedy decoding of any batch
gives what each caption would get alone, up to rounding. Costs one exponential per word of the
vocabulary, caption and step, on the CPU so that a GPU changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class GumbelSampling:
    """A logits processor that makes greedy decoding sample from the nucleus, each row from its own
    stream.

    Nucleus: the fewest words whose probabilities reach top_p (Holtzman et al., 2020).
    """

    def __init__(self, seeds: Sequence[int], top_p: float) -> None:
        import torch
        from transformers import TopPLogitsWarper

        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.nucleus = TopPLogitsWarper(top_p=top_p)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (rows, words) with the words outside of the nucleus at -inf and Gumbel noise on
        the others."""
        import torch

        kept = self.nucleus(input_ids, scores.float())
        noise = [
            -torch.empty(kept.shape[1]).exponential_(generator=stream).log()
            for stream in self.streams
        ]
        noisy: Tensor = kept + torch.stack(noise).to(kept.device)
        return noisy


def seed_of(seed: int, uid: str, index: int) -> int:
    """63 bits for one caption of one pair."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}\0{uid}\0{index}".encode()).digest()[:8], "big") >> 1
    )
