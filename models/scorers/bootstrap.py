"""Cosine of image and text by a small CLIP trained on the pool itself, by the model that did not
see the pair.

Two spaces, on purpose: `clip_score` comes from the model of the pair's own held-out fold, so it is
never a memory of the pair; it is the cosine of `own_image_emb` and `own_text_emb`, which can be
compared within a fold. `image_emb` and `text_emb` come from fold 0's model for every pair, because
neighbours and clusters need one space for all; their cosine is therefore not `clip_score` except in
fold 0. Without `embeddings` that pass is saved.

Cost at the default sizes, 2 folds: 2 700 CPU seconds per million pairs, 1 800 without embeddings;
the four embeddings are 1 kB a pair on disk, of which the own ones, computed anyway, are half.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.base import Batch, Columns
from models.bootstrap import embed_images, embed_tokens, load_folds, on_threads, to_small
from models.scorers.pairs import (
    Array,
    column,
    distinct,
    pair_faults,
    spread,
    spread_embeddings,
)
from schemas.configs import BootstrapScorer

EMBEDDINGS = ("image_emb", "text_emb", "own_image_emb", "own_text_emb")
NO_FOLD = "no fold: no image or not in the fitted version"


class Bootstrap:
    """Scores pairs whose fold stands in the batch column `<name>__fold` (int, or None: an error for
    that pair)."""

    def __init__(self, config: BootstrapScorer, artifact: Path | None) -> None:
        if artifact is None:
            raise ValueError(
                f"scorer {config.name}: is fitted on a pool first; "
                "no folder of fitted models was given"
            )
        self.config = config
        self.models, self.vocabulary = load_folds(artifact, config)

    def __call__(self, batch: Batch) -> Columns:
        folds = column(batch, f"{self.config.name}__fold", self.config.name)
        errors = [
            fault or self._fold_fault(fold)
            for fault, fold in zip(pair_faults(batch), folds, strict=True)
        ]
        rows = [row for row, error in enumerate(errors) if error is None]
        images, tokens, places = self._inputs(batch, rows)
        own = np.array([folds[row] for row in rows], np.int64)
        both, common = self._embeddings(own, images, tokens, places)
        scores = np.sum(both[0] * both[1], axis=1)
        n = len(batch)
        columns: Columns = {
            "clip_score": spread(scores.tolist(), rows, n),
            "fold": spread(own.tolist(), rows, n),
        }
        if common:
            named = zip(EMBEDDINGS, (*common, *both), strict=True)
            columns |= {name: spread_embeddings(found, rows, n) for name, found in named}
        return columns | {"error": errors}

    def _embeddings(
        self, own: Array, images: Array, tokens: Array, places: Array
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Of the images and of the texts: float32 (2, m, d) by the pairs' own models, and by fold
        0's where that is asked for.
        """
        both = np.empty((2, len(own), self.config.embed_dim), np.float32)
        common = None
        for fold in range(self.config.folds):
            chosen = np.arange(len(own)) if self._common(fold) else np.flatnonzero(own == fold)
            with on_threads(self.config.threads):
                found = self._embed(fold, images[chosen], tokens, places[chosen])
            mine = own[chosen] == fold
            for side, embeddings in zip(both, found, strict=True):
                side[chosen[mine]] = embeddings[mine]
            common = found if self._common(fold) else common
        return both, common

    def _common(self, fold: int) -> bool:
        """Whether this fold's space is the one that all pairs are embedded in."""
        return self.config.embeddings and fold == 0

    def _fold_fault(self, fold: int | None) -> str | None:
        return None if fold is not None and 0 <= fold < self.config.folds else NO_FOLD

    def _inputs(self, batch: Batch, rows: list[int]) -> tuple[Array, Array, Array]:
        """Small images (m, s, s, 3), tokens of the distinct captions, and each row's place among
        these."""
        size = self.config.image_size
        images = np.empty((len(rows), size, size, 3), np.uint8)
        for i, row in enumerate(rows):
            image = batch.images[row]
            if image is not None:
                images[i] = to_small(image, size)
        texts, places = distinct(batch.captions[row] or "" for row in rows)
        tokens = self.vocabulary.encode(texts, self.config.context_length)
        return images, tokens, np.array(places, np.int64)

    def _embed(self, fold: int, images: Array, tokens: Array, places: Array) -> tuple[Array, Array]:
        """Embeddings of these pairs in a fold's space, each distinct caption encoded once."""
        model, size = self.models[fold], self.config.batch_size
        needed, back = np.unique(places, return_inverse=True)
        return embed_images(model, images, size), embed_tokens(model, tokens[needed], size)[back]
