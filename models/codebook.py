"""TL;DR's captioner (2305.20087, section 3.1): an image's patches, quantised to a codebook, from
which a decoder tells a caption.

    pixels -encoder-> patches (n, L, width) -project-> e (n, L, d) -quantiser-> codes (n, L), z
    z -decoder-> words

loss = next word's cross-entropy + the quantiser's. An image is said again by its codes alone, so
that images with the same codes have the same caption, and codes say what is in an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from models.caption_decoder import Choose, Decoder
from models.patches import patch_encoder
from models.quantiser import Quantised, Quantiser
from models.vocabulary import PADDING, UNKNOWN, Vocabulary
from schemas.configs import CodebookCaptioner

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Told:
    """words: nats per word, quantised: (n, L) codes with their vectors, patches: e (n, L, d)."""

    words: Tensor
    quantised: Quantised
    patches: Tensor


class CodebookModel(nn.Module):
    """The untrained model of a config; initialised from torch's global generator."""

    def __init__(
        self, config: CodebookCaptioner, vocabulary: Vocabulary, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.encoder = patch_encoder(config.encoder, pretrained)
        self.project = nn.Linear(self.encoder.width, config.dim)
        # what all patches share says nothing: without this they differ by little and so do codes
        self.spread = nn.BatchNorm1d(config.dim, affine=False)
        self.quantiser = Quantiser(
            config.codes,
            config.dim,
            update=config.update,
            decay=config.decay,
            beta=config.beta,
            revive_after=config.revive_after,
        )
        self.decoder = Decoder(
            words=vocabulary.size,
            context=config.context_length,
            patches=self.encoder.length,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
        )

    @property
    def device(self) -> torch.device:
        return self.decoder.places.device

    def patches(self, images: Array | Tensor) -> Tensor:
        """e (n, L, d) of uint8 (n, side, side, 3); of the pool's patches each of the d numbers has
        mean 0 and variance 1.
        """
        pixels = torch.as_tensor(np.ascontiguousarray(images)).to(self.device)
        found: Tensor = self.spread(self.project(self.encoder(pixels)).transpose(1, 2))
        return found.transpose(1, 2)

    def forward(self, images: Array, tokens: Array) -> Told:
        """What a training step needs. tokens: int64 (n, context) of `vocabulary.encode`."""
        patches = self.patches(images)
        quantised: Quantised = self.quantiser(patches)
        ids = torch.from_numpy(tokens).to(self.device)
        return Told(word_loss(self.decoder, ids, quantised.vectors), quantised, patches)

    @torch.inference_mode()
    def codes(self, images: Array) -> Array:
        """Codes int16 (n, L) of uint8 (n, side, side, 3), row by row from the top left."""
        found = self.quantiser.nearest(self.patches(images))
        return np.asarray(found.cpu().numpy(), np.int16)

    @torch.inference_mode()
    def captions(self, codes: Array, choose: Choose) -> list[str]:
        """A caption of each row of codes (n, L). choose: which word, by the scores (n, words)."""
        ids = torch.from_numpy(codes.astype(np.int64)).to(self.device)
        said = self.decoder.generate(
            self.quantiser.weight[ids],
            start=self.vocabulary.start,
            end=self.vocabulary.end,
            least=self.config.min_new_tokens,
            most=min(self.config.max_new_tokens, self.config.context_length - 1),
            choose=choose,
            penalty=self.config.repetition_penalty,
        )
        return [self.vocabulary.decode(words) for words in said]


def word_loss(decoder: Decoder, tokens: Tensor, vectors: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of each next word, unknown ones aside: they are read, never said."""
    scores, targets = decoder(tokens[:, :-1], vectors), tokens[:, 1:]
    unsaid = (targets == PADDING) | (targets == UNKNOWN)
    return cross_entropy(
        scores.flatten(0, 1),
        targets.masked_fill(unsaid, -100).flatten(),
        ignore_index=-100,
        reduction=reduction,
    )


def likeliest(scores: Tensor) -> Tensor:
    """Greedy decoding: ids (n,) of scores (n, words)."""
    return scores.argmax(1)


def load_codebook(folder: Path, config: CodebookCaptioner) -> CodebookModel:
    """The trained model of an artifact in eval mode, on the GPU where there is one.

    Raises ValueError with the file that is missing or does not fit the config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    vocabulary = Vocabulary.load(vocabulary_of(folder))
    with torch.random.fork_rng(devices=[]):
        model = CodebookModel(config, vocabulary, pretrained=False)
    path = model_of(folder)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{path}: no model of this config ({type(error).__name__}); "
            f"fit captioner {config.name} again"
        ) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def model_of(folder: Path) -> Path:
    """Where the trained weights lie in an artifact."""
    return folder / "model.safetensors"


def vocabulary_of(folder: Path) -> Path:
    """Where the vocabulary lies in an artifact."""
    return folder / "vocabulary.json"
