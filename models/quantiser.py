"""A vector quantiser: patch vectors to the nearest of K codes, with straight-through gradients.

1. Nearest code by squared distance; what goes on is the code, what comes back is the gradient as it
   is (van den Oord et al. 2017, section 3.2).
2. The codes follow their vectors: by an exponential moving average (appendix A.1 there), or by the
   gradient of the codebook term.
3. A code that no vector has chosen for a while is put on a vector of the batch (Dhariwal et al.
   2020, section 3.1), so that a codebook does not die down to a few codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn.functional import mse_loss

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 1 << 24  # distances that are held at once
SMOOTHING = 1e-5  # of the average counts, so that no code is divided by nothing


@dataclass(frozen=True)
class Quantised:
    """codes: int64 (...), vectors: (..., d) with straight-through gradients, loss: scalar."""

    codes: Tensor
    vectors: Tensor
    loss: Tensor


class Quantiser(nn.Module):
    """A codebook (K, d) in `weight`: a parameter with `update` gradient, else a buffer."""

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        update: Literal["ema", "gradient"] = "ema",
        decay: float = 0.99,
        beta: float = 0.25,
        revive_after: int = 100,
    ) -> None:
        super().__init__()
        self.update, self.decay, self.beta, self.revive_after = update, decay, beta, revive_after
        self.weight: Tensor
        if update == "gradient":
            self.weight = nn.Parameter(torch.empty(codes, dim))
        else:
            self.register_buffer("weight", torch.empty(codes, dim))
        self.counts: Tensor
        self.sums: Tensor
        self.unused: Tensor  # steps since a vector has chosen the code
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", torch.empty(codes, dim))
        self.register_buffer("unused", torch.zeros(codes, dtype=torch.int64))
        self.start(torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes))

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Put the codes at these places (K, d), with no history."""
        self.weight.copy_(weight)
        self.sums.copy_(weight)
        self.counts.fill_(1)
        self.unused.zero_()

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Codes int64 (...) of vectors (..., d): argmin ||e - c||^2, without ||e||^2."""
        lengths, rows = self.weight.square().sum(1), max(1, CELLS // len(self.weight))
        flat = vectors.reshape(-1, vectors.shape[-1])
        found = [(lengths - 2 * part @ self.weight.T).argmin(1) for part in torch.split(flat, rows)]
        return torch.cat(found).reshape(vectors.shape[:-1])

    def forward(self, vectors: Tensor) -> Quantised:
        """Vectors (..., d) quantised; the loss is the commitment term times beta, plus the codebook
        term where codes are moved by gradients. Both are means over all numbers.
        """
        codes = self.nearest(vectors)
        chosen = self.weight[codes]
        loss = self.beta * mse_loss(vectors, chosen.detach())
        if self.update == "gradient":
            loss = loss + mse_loss(chosen, vectors.detach())
        return Quantised(codes, vectors + (chosen - vectors).detach(), loss)

    @torch.no_grad()
    def follow(self, vectors: Tensor, codes: Tensor, draw: torch.Generator) -> None:
        """After a training step: move the codes to their vectors (n, d), revive the dead ones.

        codes: int64 (n,), what the vectors had chosen. draw: on the CPU, seeded by the caller.
        """
        seen = torch.bincount(codes, minlength=len(self.weight)).to(vectors.dtype)
        if self.update == "ema":
            self.counts.lerp_(seen, 1 - self.decay)
            own = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
            self.sums.lerp_(own, 1 - self.decay)
            total, codes_ = self.counts.sum(), len(self.counts)
            smooth = (self.counts + SMOOTHING) / (total + codes_ * SMOOTHING) * total
            self.weight.copy_(self.sums / smooth[:, None])
        self.unused.add_(1).masked_fill_(seen > 0, 0)
        self._revive(vectors, draw)

    def _revive(self, vectors: Tensor, draw: torch.Generator) -> None:
        dead = (self.unused >= self.revive_after).nonzero()[:, 0]
        if len(dead):
            rows = torch.randint(len(vectors), (len(dead),), generator=draw).to(vectors.device)
            self.weight[dead] = vectors[rows]
            self.sums[dead] = vectors[rows]
            self.counts[dead] = 1.0
            self.unused[dead] = 0


def usage(codes: Tensor, size: int) -> tuple[float, float]:
    """Perplexity of some codes, exp of their entropy in nats; share of `size` codes that occur."""
    counts = torch.bincount(codes.reshape(-1), minlength=size).double()
    share = counts / counts.sum()
    entropy = -(share * share.clamp(min=1e-300).log()).sum()
    return float(entropy.exp()), float((counts > 0).double().mean())
