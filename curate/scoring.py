"""Scoring: what the pass over images and the one over stored embeddings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa

import models
from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.storage import as_local
from models.base import Batch, Columns, Scorer
from schemas.configs import ScorerConfig, Workers
from schemas.tables import scores

Unit = tuple[ScorerConfig, Claim, Scorer]


def run_units(
    data: Dataset,
    configs: Sequence[ScorerConfig],
    claims: Sequence[Claim],
    score_part: Callable[[int, Sequence[Unit]], Stats],
    workers: Workers | int,
    *,
    label: str,
    model: bool,
) -> None:
    """Call `score_part(part, units)` for every part with the scorers whose table lacks it; publish.

    A worker builds the scorers that have something to do, once. model: see `run_parts`.
    """
    todo = {claim.table: set(data.missing(claim)) for claim in claims}
    waiting = [(c, k) for c, k in zip(configs, claims, strict=True) if todo[k.table]]

    def build() -> Work:
        keep = ExitStack()
        units = [(c, claim, _load(data, c, claim.artifact, keep)) for c, claim in waiting]
        return lambda part: score_part(part, [u for u in units if part in todo[u[1].table]])

    run_parts(build, sorted(set().union(*todo.values())), workers, label=label, model=model)
    data.publish(*claims)


def _load(data: Dataset, config: ScorerConfig, key: str, keep: ExitStack) -> Scorer:
    if not key:
        return models.scorer(config)
    folder = keep.enter_context(as_local(data.fs, f"{data.path}/_artifacts/{config.name}/{key}"))
    return models.scorer(config, folder)


def to_table(batch: Batch, columns: Columns, kind: str) -> pa.Table:
    """A scorer's columns as rows of its table; 2-D arrays become fixed-size float16 lists."""
    embeddings = {n: np.asarray(v) for n, v in columns.items() if getattr(v, "ndim", 1) > 1}
    schema = scores(kind, {n: a.shape[1] for n, a in embeddings.items()})
    columns = {"uid": batch.uids, "caption_id": batch.caption_ids, **columns}
    arrays = []
    for field in schema:
        if field.name in embeddings:
            arrays.append(_lists(embeddings[field.name]))
        else:
            arrays.append(pa.array(columns[field.name], field.type, from_pandas=True))
    return pa.table(arrays, schema=schema)


def _lists(array: np.ndarray[Any, Any]) -> pa.Array:
    """Null where a row has not one number: an image without a caption has its embedding still."""
    values = pa.array(np.ascontiguousarray(array, np.float16).reshape(-1), pa.float16())
    mask = pa.array(np.isnan(array).all(axis=1), pa.bool_())
    return pa.FixedSizeListArray.from_arrays(values, array.shape[1], mask=mask)
