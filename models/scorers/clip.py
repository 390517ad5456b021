"""Cosine of image and text by any open_clip model: a pretrained tag, a hub id or a local
checkpoint.

CLIPScore (Hessel et al., 2021) without its factor and its clipping at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import Batch, Columns, Image
from models.clip import load_pretrained, precision_of
from models.scorers.fitting import Fitting
from models.scorers.pairs import (
    Array,
    distinct,
    image_fault,
    pair_faults,
    spread,
    spread_embeddings,
)
from models.scorers.preprocess import Preprocess
from models.scorers.text_tower import TextTower
from schemas.configs import ClipScorer
from schemas.tables import clean

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHARACTERS = (
    2000  # of a caption that are tokenized: 77 tokens of English are 350, and byte pairs cost n**2
)
CPU_ROWS = 32  # at once on a CPU: more of them cost memory and gain nothing (tried: 4 to 128)


class Clip:
    """Scores pairs, on the GPU where there is one; what occurs often in a call is encoded once."""

    def __init__(self, config: ClipScorer) -> None:
        import open_clip
        import torch

        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        precision = precision_of(config.precision, self.device.type)
        self.dtype = open_clip.get_input_dtype(precision)
        self.model, transform, self.tokenizer = load_pretrained(
            config.model, config.pretrained, precision, self.device.type
        )
        self.prepare = Preprocess(transform, self.model.visual.preprocess_cfg["resize_mode"])
        self.tower = TextTower(self.model, self.device)
        rows = config.batch_size if self.device.type == "cuda" else min(config.batch_size, CPU_ROWS)
        self.images, self.texts = Fitting(rows), Fitting(rows)
        self.dim = 0  # until the first text
        with torch.inference_mode():
            self.dim = self._texts(["a"]).shape[1]

    def __call__(self, batch: Batch) -> Columns:
        import torch

        errors = self._image_faults(batch)
        pixels, places = self._pixels(batch, errors)
        errors = [e or fault for e, fault in zip(errors, pair_faults(batch), strict=True)]
        rows = [row for row, error in enumerate(errors) if error is None]
        texts, captions = distinct(batch.captions[row] or "" for row in rows)
        with torch.inference_mode():  # a GPU still computes the images while texts are tokenized
            image_emb, text_emb = self._images(pixels), self._texts(texts)
        seen = sorted(places)
        images = image_emb.cpu().numpy()[[places[row] for row in seen]]
        return self._columns(images, seen, text_emb.cpu().numpy()[captions], rows, errors)

    def _image_faults(self, batch: Batch) -> list[str | None]:
        """Why an image is not encoded; without a caption it has no score, but an embedding."""
        faults = [image_fault(batch, row) for row in range(len(batch))]
        return faults if self.config.embeddings else pair_faults(batch)

    def _columns(
        self, images: Array, seen: list[int], captions: Array, rows: list[int], errors: list[Any]
    ) -> Columns:
        """seen: the rows that the images are of; rows: those of the captions, each of them seen."""
        n, own = len(errors), images[np.searchsorted(seen, rows)]
        columns: Columns = {
            "clip_score": spread(np.sum(own * captions, axis=1).tolist(), rows, n),
            "error": errors,
        }
        if self.config.embeddings:
            columns["image_emb"] = spread_embeddings(images, seen, n)
            columns["text_emb"] = spread_embeddings(captions, rows, n)
        return columns

    def _pixels(self, batch: Batch, errors: list[str | None]) -> tuple[list[Image], dict[int, int]]:
        """The distinct images at the model's size, and which of them each row has; a row without
        gets its error.

        They stand in the column `<name>__prepared` where `prepare` was called beforehand.
        """
        ready = batch.columns.get(f"{self.config.name}__prepared", [None] * len(batch))
        pixels: list[Image] = []
        known: dict[int, int] = {}  # by identity: an image may come with several captions
        places: dict[int, int] = {}
        for row, (image, prepared) in enumerate(zip(batch.images, ready, strict=True)):
            if image is None or errors[row] is not None:
                continue
            if id(image) not in known:
                found = self.prepare(image) if prepared is None else prepared
                if isinstance(found, str):
                    errors[row] = found
                    continue
                known[id(image)] = len(pixels)
                pixels.append(found)
            places[row] = known[id(image)]
        return pixels, places

    def _images(self, pixels: Sequence[Image]) -> Tensor:
        """Unit vectors (n, d) of images, on the device."""

        def encode(some: Sequence[Image]) -> Tensor:
            floats = self.prepare.floats(some, self.device, self.dtype)
            return self._unit(self.model.encode_image(floats))

        return self._joined(self.images(encode, pixels))

    def _texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, d) of texts, on the device."""
        import torch

        if not texts:
            return self._joined([])
        tokens = self.tokenizer([clean(text)[:MAX_CHARACTERS] for text in texts])
        groups = self.tower.batches(tokens, self.texts.rows)
        found = [
            part
            for places in groups
            for part in self.texts(lambda some: self._unit(self.tower(tokens[list(some)])), places)
        ]
        order = torch.tensor([place for places in groups for place in places])
        return self._joined(found)[torch.argsort(order).to(self.device)]

    def _unit(self, embeddings: Tensor) -> Tensor:
        from torch.nn.functional import normalize

        return normalize(embeddings.float(), dim=-1)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        import torch

        return torch.cat(parts) if parts else torch.empty((0, self.dim), device=self.device)
