"""What scorers of stored embeddings share: a batch's pairs as arrays, and who has none.

Pairs are compared with others in one space, which must not be that of a model that has seen them:
where the scorer that is read was cross-fitted, and so has stored a `fold` and `own_*` embeddings, a
pair is compared with pairs of its own fold, by the model that held both out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from models.base import Batch
from models.contrast import Pairs, References, codes_of, contrastive_loss, load_spaces
from models.scorers.pairs import Array, column

ALONE = "no other image and caption to compare with"


def compared_by(stored: Collection[str]) -> tuple[str, str]:
    """Which of a scorer's stored columns are the embeddings, of image and of text, by which its
    pairs are compared with others.
    """
    crossfitted = "fold" in stored
    return ("own_image_emb", "own_text_emb") if crossfitted else ("image_emb", "text_emb")


def missing(batch: Batch, name: str, of: str) -> list[str | None]:
    """Per pair: why it has no stored embeddings of the scorer `of`, None where it has."""
    images, texts, scores = (
        column(batch, key, name) for key in (*compared_by(batch.columns), "clip_score")
    )
    return [
        f"not scored by {of}: {batch.image_errors[row] or 'no embedding'}"
        if scores[row] is None or not (finite(images[row]) and finite(texts[row]))
        else None
        for row in range(len(batch))
    ]


def pairs_at(batch: Batch, rows: Sequence[int], name: str) -> Pairs:
    """These pairs of a batch, which all have stored embeddings."""

    def picked(key: str) -> list[object]:
        values = column(batch, key, name)
        return [values[row] for row in rows]

    uids, captions = ([values[row] for row in rows] for values in (batch.uids, batch.captions))
    images, texts = (np.array(picked(key)) for key in compared_by(batch.columns))
    return Pairs(
        images,
        texts,
        np.array(picked("clip_score"), np.float32),
        codes_of([str(uid) for uid in uids], picked("samples__sha256"), captions),
    )


def directions(
    batch: Batch, name: str, of: str, dim: int, expected: str
) -> tuple[Array, list[int], list[str | None]]:
    """Stored image embeddings, L2-normalised float32 (m, d), the rows that have them, and the
    errors of the others.

    expected: who expects vectors of length `dim`, and what to do where they have another.
    """
    stored = column(batch, "image_emb", name)
    there = [row for row, embedding in enumerate(stored) if embedding is not None]
    found = np.array([stored[row] for row in there], np.float32)
    found = found if there else np.empty((0, dim), np.float32)
    if found.shape[1] != dim:
        raise ValueError(
            f"scorer {name}: embeddings of scorer {of} have {found.shape[1]} values, {expected}"
        )
    errors: list[str | None] = [
        f"not scored by {of}: {reason or 'no embedding'}" for reason in batch.image_errors
    ]
    good: Array = np.logical_and(np.isfinite(found).all(axis=1), found.any(axis=1))
    for row in there:
        errors[row] = f"the embedding of {of} is no direction"
    rows = [row for row, is_good in zip(there, good, strict=True) if is_good]
    return found[good] / np.linalg.norm(found[good], axis=1, keepdims=True), rows, errors


def losses(
    batch: Batch, spaces: Mapping[int, References], temperature: float, name: str, of: str
) -> tuple[list[float | None], list[str | None]]:
    """The contrastive loss of every pair of a batch, None with the reason among the errors.

    spaces: reference sets by fold; 0 is the fold of all where the scorer `of` has none.
    """
    errors = missing(batch, name, of)
    folds = batch.columns.get("fold", [0] * len(batch))
    good = [row for row, error in enumerate(errors) if error is None]
    found: list[float | None] = [None] * len(batch)
    for fold, references in spaces.items():
        rows = [row for row in good if folds[row] == fold]
        if not rows:
            continue
        pairs = pairs_at(batch, rows, name)
        _refuse_another_space(pairs, references, name, of)
        values = contrastive_loss(pairs, references, temperature)
        for row, value in zip(rows, values.tolist(), strict=True):
            found[row] = None if math.isnan(value) else value
    for row in good:
        errors[row] = ALONE if found[row] is None else None
    return found, errors


def load_references(artifact: Path | None, name: str) -> dict[int, References]:
    """What a pool-level unit has fitted, by fold. Raises ValueError where no folder was given."""
    if artifact is None:
        raise ValueError(
            f"scorer {name}: is fitted on a pool first; no folder of reference pairs was given"
        )
    return load_spaces(artifact)


def _refuse_another_space(pairs: Pairs, references: References, name: str, of: str) -> None:
    mine, fitted = pairs.images.shape[1], references.images.shape[-1]
    if mine != fitted or pairs.texts.shape[1] != fitted:
        raise ValueError(
            f"scorer {name}: was fitted on embeddings of length {fitted}, those of scores_{of} have"
            f" {mine}: give it refit: every_version"
        )


def finite(embedding: Array | None) -> bool:
    """Whether a stored embedding is there and a direction."""
    return embedding is not None and bool(np.isfinite(embedding).all())
