"""Cosine of image and text by any open_clip model: a pretrained tag, a hub id or a local
checkpoint.

CLIPScore (Hessel et al., 2021) without its factor and its clipping at 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.base import Batch, Columns, Image
from models.clip import load_pretrained, precision_of
from models.decode import over_white
from models.scorers.pairs import (
    Array,
    chunks,
    distinct,
    one_line,
    pair_faults,
    spread,
    spread_embeddings,
)
from schemas.configs import ClipScorer
from schemas.tables import clean

MAX_CHARACTERS = (
    2000  # of a caption that are tokenized: 77 tokens of English are 350, and byte pairs cost n**2
)
MAX_ASPECT = 16  # beyond it the centre is cut out: else 1 x 10 000 would grow to 224 x 2 240 000


class Clip:
    """Scores pairs on the GPU where there is one. A caption that occurs many times in a call is
    encoded once."""

    def __init__(self, config: ClipScorer) -> None:
        import torch

        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision_of(config.precision, self.device.type)
        self.model, self.transform, self.tokenizer = load_pretrained(
            config.model, config.pretrained, self.precision, self.device.type
        )
        self.squares = self.model.visual.preprocess_cfg["resize_mode"] == "shortest"
        self.dim = self._texts(["a"]).shape[1]

    def __call__(self, batch: Batch) -> Columns:
        errors = pair_faults(batch)
        rows, images = self._images(batch, errors)
        texts, places = distinct(batch.captions[row] or "" for row in rows)
        captions = self._texts(texts)[places]
        n = len(batch)
        columns: Columns = {
            "clip_score": spread(np.sum(images * captions, axis=1).tolist(), rows, n),
            "error": errors,
        }
        if self.config.embeddings:
            columns["image_emb"] = spread_embeddings(images, rows, n)
            columns["text_emb"] = spread_embeddings(captions, rows, n)
        return columns

    def _images(self, batch: Batch, errors: list[str | None]) -> tuple[list[int], Array]:
        """Rows that were embedded and their embeddings; the others get their error."""
        rows: list[int] = []
        parts: list[Array] = []
        for chunk in chunks(
            [row for row, error in enumerate(errors) if error is None], self.config.batch_size
        ):
            tensors: list[Any] = []
            for row in chunk:
                try:
                    tensors.append(self._pixels(batch.images[row]))
                except (ValueError, TypeError, OSError, ZeroDivisionError) as error:
                    errors[row] = f"image not prepared: {one_line(error)}"
                else:
                    rows.append(row)
            parts.append(self._embed(self.model.encode_image, tensors, floats=True))
        return rows, np.concatenate([np.empty((0, self.dim), np.float32), *parts])

    def _pixels(self, image: Image | None) -> Any:
        from PIL.Image import fromarray

        if image is None:
            raise ValueError("no image")
        return self.transform(fromarray(over_white(centre(image) if self.squares else image)))

    def _texts(self, texts: list[str]) -> Array:
        parts = [
            self._embed(
                self.model.encode_text,
                list(self.tokenizer([clean(t)[:MAX_CHARACTERS] for t in chunk])),
            )
            for chunk in chunks(texts, self.config.batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def _embed(self, encode: Any, tensors: list[Any], floats: bool = False) -> Array:
        """L2-normalised float32 (n, d)."""
        import open_clip
        import torch

        if not tensors:
            return np.empty((0, self.dim), np.float32)
        dtype = open_clip.get_input_dtype(self.precision) if floats else None
        with torch.inference_mode():
            stacked = torch.stack(tensors).to(self.device, dtype)
            embedded = torch.nn.functional.normalize(encode(stacked).float(), dim=-1)
        return embedded.cpu().numpy()


def centre(image: Image) -> Image:
    """The middle of an image that is longer than MAX_ASPECT times its width; others as they are."""
    height, width = image.shape[:2]
    rows, columns = min(height, MAX_ASPECT * width), min(width, MAX_ASPECT * height)
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(image[top : top + rows, left : left + columns])
