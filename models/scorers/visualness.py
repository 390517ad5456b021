"""How visual a caption is, by its text alone and any open_clip model.

1 - cosine of the caption's embedding and that of one image of random pixels, which stands for
nothing (Verma et al., 2023, "Learning the Visualness of Text", TIP-CLIP). Higher is more visual.
Published decisions: 0.83 for vanilla CLIP, 0.79 for TIP-CLIP, whose weights can be named as any
others. The null image comes from SHAKE-256 of `null_seed`, the same bytes on any machine and in any
version; `null_sha256` is their digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.base import Batch, Columns, Image
from models.clip import load_pretrained, precision_of
from models.scorers.clip import MAX_CHARACTERS
from models.scorers.fitting import Fitting
from models.scorers.pairs import Array, caption_fault, distinct, spread
from models.scorers.preprocess import Preprocess
from models.scorers.text_tower import TextTower
from schemas.configs import VisualnessScorer
from schemas.tables import clean

if TYPE_CHECKING:
    from torch import Tensor


class Visualness:
    """Scores captions on the GPU where there is one; equal captions of a call are encoded once."""

    def __init__(self, config: VisualnessScorer) -> None:
        import open_clip
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = precision_of(config.precision, device.type)
        model, transform, self.tokenizer = load_pretrained(
            config.model, config.pretrained, precision, device.type
        )
        self.tower, self.fitting = TextTower(model, device), Fitting(config.batch_size)
        seen = model.visual.preprocess_cfg
        null = null_image(config.null_seed, *sides(seen["size"]))
        self.null_sha256 = hashlib.sha256(null.tobytes()).hexdigest()
        with torch.inference_mode():
            floats = Preprocess(transform, seen["resize_mode"]).floats(
                [null], device, open_clip.get_input_dtype(precision)
            )
            self.null = unit(model.encode_image(floats))[0]

    def __call__(self, batch: Batch) -> Columns:
        errors = [caption_fault(caption) for caption in batch.captions]
        rows = [row for row, error in enumerate(errors) if error is None]
        texts, places = distinct(batch.captions[row] or "" for row in rows)
        scores = self._scores(texts)[places] if rows else np.empty(0)
        return {"visualness": spread(scores.tolist(), rows, len(batch)), "error": errors}

    def _scores(self, texts: Sequence[str]) -> Array:
        """float32 (n,) of one text or more."""
        import torch

        tokens = self.tokenizer([clean(text)[:MAX_CHARACTERS] for text in texts])

        def score(some: Sequence[int]) -> Tensor:
            return 1 - unit(self.tower(tokens[list(some)])) @ self.null

        found = np.empty(len(texts), np.float32)
        with torch.inference_mode():
            for places in self.tower.batches(tokens, self.fitting.rows):
                found[places] = torch.cat(self.fitting(score, places)).cpu().numpy()
        return found


def unit(embeddings: Tensor) -> Tensor:
    """L2-normalised float32 (n, d)."""
    from torch.nn.functional import normalize

    return normalize(embeddings.float(), dim=-1)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a model sees, as open_clip says it: one number for a square."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def null_image(seed: int, height: int, width: int) -> Image:
    """Fixed random pixels: RGB uint8 (height, width, 3)."""
    data = hashlib.shake_256(str(seed).encode()).digest(height * width * 3)
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
