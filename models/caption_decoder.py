"""A small causal text decoder that looks at patch vectors by cross-attention.

Pre-norm transformer; word vectors are tied to the output. Generation keeps the keys and values of
what was said, so that a word costs one position and not the whole text again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from models.vocabulary import PADDING, UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple["Tensor", "Tensor"]  # keys and values, (n, heads, length, dim / heads)
Choose = Callable[["Tensor"], "Tensor"]  # scores (n, words) -> ids (n,)


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made once and kept."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def look_at(self, x: Tensor) -> Pair:
        """Keys and values of x (n, length, dim)."""
        keys, values = self.key_value(x).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, pair: Pair, causal: bool = False) -> Tensor:
        """x (n, length, dim) looks at what the pair was made of."""
        found = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            *pair,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Self-attention, cross-attention, MLP."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.own, self.cross = Attention(dim, heads, dropout), Attention(dim, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Pair, past: Pair | None = None) -> tuple[Tensor, Pair]:
        """x (n, length, dim) after the block, and the keys and values of all that was said."""
        seen = self.norms[0](x)
        keys, values = self.own.look_at(seen)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x = x + self.drop(self.own(seen, (keys, values), causal=past is None))
        x = x + self.drop(self.cross(self.norms[1](x), memory))
        return x + self.drop(self.mlp(self.norms[2](x))), (keys, values)


class Decoder(nn.Module):
    """Words given words and patches. patches, context: their numbers at most."""

    def __init__(
        self,
        *,
        words: int,
        context: int,
        patches: int,
        dim: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, dim)
        self.places = nn.Parameter(torch.empty(context, dim))
        self.patch_places = nn.Parameter(torch.empty(patches, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        for weight in (self.words.weight, self.places, self.patch_places):
            nn.init.normal_(weight, std=1 / math.sqrt(dim))

    def memory(self, patches: Tensor) -> list[Pair]:
        """What each block's cross-attention sees of patches (n, length, dim)."""
        placed = patches + self.patch_places
        blocks: list[Any] = list(self.blocks)
        return [block.cross.look_at(placed) for block in blocks]

    def _nothing(self) -> list[Pair | None]:
        return [None for _ in self.blocks]

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Scores (n, length, words) of the word after each of tokens, int64 (n, length)."""
        return self.continued(tokens, self.memory(patches), self._nothing(), 0)[0]

    def continued(
        self, tokens: Tensor, memory: list[Pair], past: list[Pair | None], begin: int
    ) -> tuple[Tensor, list[Pair | None]]:
        """The same for tokens after `begin` earlier ones, whose keys and values are `past`."""
        places = self.places[begin : begin + tokens.shape[1]]
        x, kept = self.drop(self.words(tokens) + places), list(past)
        for at, block in enumerate(self.blocks):
            x, kept[at] = block(x, memory[at], past[at])
        return F.linear(self.norm(x), self.words.weight), kept

    @torch.inference_mode()
    def generate(
        self,
        patches: Tensor,
        *,
        start: int,
        end: int,
        least: int,
        most: int,
        choose: Choose,
        penalty: float = 1.0,
    ) -> list[list[int]]:
        """Ids of the words said of patches (n, length, dim), without start and end.

        least, most: how many words. Padding, unknown and start are never said. penalty: above 1
        makes words less likely that were said before (Keskar et al. 2019, section 4.1).
        """
        memory, past = self.memory(patches), self._nothing()
        rows = torch.full((len(patches), 1), start, device=patches.device)
        said: list[list[int]] = [[] for _ in patches]
        going = [True] * len(patches)
        for at in range(min(most, len(self.places))):
            scores, past = self.continued(rows, memory, past, at)
            scores = penalised(scores[:, -1].float(), said, penalty)
            scores[:, [PADDING, UNKNOWN, start]] = -torch.inf
            if at < least:
                scores[:, end] = -torch.inf
            rows = choose(scores)[:, None]
            for row, word in enumerate(rows[:, 0].tolist()):
                going[row] = going[row] and word != end
                if going[row]:
                    said[row].append(word)
            if not any(going):
                break
        return said


def penalised(scores: Tensor, said: list[list[int]], penalty: float) -> Tensor:
    """Scores (n, words) with those of the words that each row has said over `penalty` where they
    are positive, times it where they are negative.
    """
    found = scores.clone()
    for row, words in enumerate(said):
        own = scores[row, words]
        found[row, words] = torch.where(own > 0, own / penalty, own * penalty)
    return found
