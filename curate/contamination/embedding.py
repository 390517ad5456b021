"""Embedding: images -> the embeddings that a scorer of the pool would have stored of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from curate.dataset import Dataset
from curate.fits.references import columns_stored, space_of
from curate.storage import as_local
from models.base import Batch, Image
from schemas.base import explain
from schemas.configs import BootstrapScorer, ClipScorer, EvaluationItems, ScorerConfig

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Embed = Callable[[Sequence[Image]], Matrix]  # (n, d); rows of zeros where there is none


def space(data: Dataset, config: EvaluationItems) -> str:
    """A hash of what made the stored embeddings. Raises ValueError where there are none."""
    table = f"scores_{config.embeddings}"
    asked = f"evaluation {config.name!r} compares what scorer {config.embeddings!r} stored"
    if table not in data.tables():
        raise ValueError(
            f"{asked}; {data.root} has no table {table!r}: add a scorer of that name to the recipe,"
            " such as `clip`, or leave `embeddings` out"
        )
    if "image_emb" not in columns_stored(data, table):
        raise ValueError(f"{asked}; {table} has no image_emb: let it have `embeddings: true`")
    return space_of(data, table)


def embedder(data: Dataset, config: EvaluationItems) -> Embed:
    """The function, its model loaded. Raises ValueError for a scorer of another kind than clip and
    bootstrap: their embeddings of other images cannot be had.
    """
    table = f"scores_{config.embeddings}"
    claimed = {k: v for k, v in data.config_of(table).items() if k != "version"}
    scorer: Any = None
    try:
        scorer = TypeAdapter(ScorerConfig).validate_python(claimed)
        said = f"its kind is {scorer.kind!r}"
    except ValidationError as error:
        said = explain(error)
    if isinstance(scorer, ClipScorer):
        return _clip(scorer)
    if isinstance(scorer, BootstrapScorer):
        return _bootstrap(data, scorer, data.artifact_in_use(table))
    raise ValueError(
        f"evaluation {config.name!r}: images cannot be embedded as {table} has them ({said}); name"
        " a scorer of kind clip or bootstrap in `embeddings`, or leave it out"
    )


def _clip(config: ClipScorer) -> Embed:
    from models.scorers.clip import Clip

    scorer = Clip(config)

    def embed(images: Sequence[Image]) -> Matrix:
        names = [str(i) for i in range(len(images))]
        nothing: list[str | None] = [None] * len(images)
        columns = scorer(Batch(names, names, nothing, list(images), list(nothing), {}))
        return np.nan_to_num(np.asarray(columns["image_emb"], np.float32))

    return embed


def _bootstrap(data: Dataset, config: BootstrapScorer, key: str) -> Embed:
    """By fold 0's model, whose space is the one of all stored embeddings."""
    from models.bootstrap import embed_images, load_folds, on_threads, to_small

    with as_local(data.fs, f"{data.path}/_artifacts/{config.name}/{key}") as folder:
        model = load_folds(folder, config)[0][0]

    def embed(images: Sequence[Image]) -> Matrix:
        size = config.image_size
        small = [to_small(image, size) for image in images]
        stacked = np.stack(small) if small else np.empty((0, size, size, 3), np.uint8)
        with on_threads(config.threads):
            return np.asarray(embed_images(model, stacked, config.batch_size), np.float32)

    return embed
