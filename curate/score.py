"""Score: urls, samples -> scores_*.

One pass: a worker reads a part's images by byte range, decodes them once and runs every scorer on
the same pixels.
Nothing is dropped: a pair that a scorer cannot score is a row of nulls with an `error`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa

import models
from curate.dataset import Claim, Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits import FITS
from curate.shards import batches
from curate.storage import as_local
from models.base import Batch, Columns, Scorer
from schemas.configs import CaptionerConfig, ScorerConfig, Workers
from schemas.tables import scores

BATCH = 256
ALIGNMENT = ("clip", "bootstrap")  # kinds whose score depends on the caption and the image


def score(data: Dataset, configs: Sequence[ScorerConfig], workers: Workers | int = 0) -> None:
    """Score every downloaded pair with every scorer; a scorer that is added later computes only its
    own table.

    Raises ValueError for a model that cannot be had, or a table that was made with another config.
    """
    claims = [
        data.claim(f"scores_{c.name}", c, of=("urls", "samples"), artifact=_fit(data, c, workers))
        for c in configs
    ]
    _run(data, configs, claims, workers, None)


def score_captions(
    data: Dataset,
    configs: Sequence[ScorerConfig],
    captioners: Sequence[CaptionerConfig],
    workers: Workers | int = 0,
) -> None:
    """Score the generated captions with the alignment scorers; they join the views `scores_*` under
    their caption_id.
    """
    chosen = [c for c in configs if c.kind in ALIGNMENT]
    for captioner in captioners:
        table = f"captions_{captioner.name}"
        claims = [
            data.claim(
                f"scores_{c.name}@{captioner.name}",
                c,
                of=("urls", "samples", table),
                artifact=_fit(data, c, workers),
            )
            for c in chosen
        ]
        _run(data, chosen, claims, workers, table)


def _fit(data: Dataset, config: ScorerConfig, workers: Workers | int) -> str:
    """The key of the pool-level state that the scorer needs, fitted where it is not there; "" for
    per-pair scorers.
    """
    if config.kind not in FITS:
        return ""
    if getattr(config, "refit", "") == "frozen" and (
        known := data.artifact_in_use(f"scores_{config.name}")
    ):
        return known
    return FITS[config.kind][0](data, config, workers)


def _run(
    data: Dataset,
    configs: Sequence[ScorerConfig],
    claims: Sequence[Claim],
    workers: Workers | int,
    captions: str | None,
) -> None:
    todo = {claim.table: set(data.missing(claim)) for claim in claims}

    def build() -> Work:
        keep = ExitStack()
        scorers = [
            _load(data, c, claim.artifact, keep) for c, claim in zip(configs, claims, strict=True)
        ]

        def work(part: int) -> Stats:
            chosen = [i for i, claim in enumerate(claims) if part in todo[claim.table]]
            return _score_part(
                data, part, [(configs[i], claims[i], scorers[i]) for i in chosen], captions
            )

        return work

    parts = sorted(set().union(*todo.values()))
    run_parts(build, parts, workers, label="score", model=any(c.kind in ALIGNMENT for c in configs))
    data.publish(*claims)


def _load(data: Dataset, config: ScorerConfig, key: str, keep: ExitStack) -> Scorer:
    if not key:
        return models.scorer(config)
    folder = keep.enter_context(as_local(data.fs, f"{data.path}/_artifacts/{config.name}/{key}"))
    return models.scorer(config, folder)


Unit = tuple[ScorerConfig, Claim, Scorer]


def _score_part(data: Dataset, part: int, units: Sequence[Unit], captions: str | None) -> Stats:
    columns: dict[str, list[Any]] = {}
    for config, claim, _ in units:
        if config.kind in FITS:
            columns |= FITS[config.kind][1](data, config, claim.artifact, part)
    found: dict[str, list[pa.Table]] = {claim.table: [] for _, claim, _ in units}
    rows = 0
    for original in batches(data, part, size=BATCH, columns=columns):
        for batch in [original] if captions is None else _generated(data, part, captions, original):
            rows += len(batch)
            for config, claim, scorer in units:
                found[claim.table].append(to_table(batch, scorer(batch), config.kind))
    for config, claim, _ in units:
        data.write(claim, part, _joined(found[claim.table], config.kind))
    return {"rows": rows}


def _joined(tables: list[pa.Table], kind: str) -> pa.Table:
    if not tables:
        return scores(kind).empty_table()
    return pa.concat_tables(tables).sort_by([("uid", "ascending"), ("caption_id", "ascending")])


def _generated(data: Dataset, part: int, table: str, batch: Batch) -> Iterator[Batch]:
    """The same images once more, each with the captions that were generated for it."""
    rows = {uid: i for i, uid in enumerate(batch.uids)}
    found = [
        r
        for r in data.read(table, part).to_pylist()
        if r["uid"] in rows and r["caption"] is not None
    ]
    if not found:
        return
    at = [rows[r["uid"]] for r in found]
    yield Batch(
        uids=[r["uid"] for r in found],
        caption_ids=[r["caption_id"] for r in found],
        captions=[r["caption"] for r in found],
        images=[batch.images[i] for i in at],
        image_errors=[batch.image_errors[i] for i in at],
        columns={name: [values[i] for i in at] for name, values in batch.columns.items()},
    )


def to_table(batch: Batch, columns: Columns, kind: str) -> pa.Table:
    """A scorer's columns as rows of its table; 2-D arrays become fixed-size float16 lists."""
    embeddings = {n: np.asarray(v) for n, v in columns.items() if getattr(v, "ndim", 1) > 1}
    schema = scores(kind, {n: a.shape[1] for n, a in embeddings.items()})
    columns = {"uid": batch.uids, "caption_id": batch.caption_ids, **columns}
    arrays = []
    for field in schema:
        if field.name in embeddings:
            arrays.append(_lists(embeddings[field.name], columns["error"]))
        else:
            arrays.append(pa.array(columns[field.name], field.type, from_pandas=True))
    return pa.table(arrays, schema=schema)


def _lists(array: np.ndarray[Any, Any], errors: Sequence[str | None]) -> pa.Array:
    values = pa.array(np.ascontiguousarray(array, np.float16).reshape(-1), pa.float16())
    mask = pa.array([e is not None for e in errors], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(values, array.shape[1], mask=mask)
