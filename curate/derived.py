"""Derived scores: scores_<of> -> scores_<name>, of scorers that read what another one has stored.

No image is read: a part's stored embeddings and scores are the batch, so that an aesthetic head or
a negCLIPLoss over a pool that was scored once costs a pass over one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import Stats
from curate.fits import FITS
from curate.fits.references import captions_of, embeddings, hashes_of, require, space_of
from curate.scoring import Unit, run_units, to_table
from models.base import Batch
from models.contrast import Array
from schemas.configs import (
    HeadScorer,
    NclScorer,
    NearReferenceScorer,
    NoiseScorer,
    ScorerConfig,
    Workers,
)

ROWS = 4096  # pairs in a batch: 8 MB of two embeddings of 512
Derived = HeadScorer | NclScorer | NoiseScorer | NearReferenceScorer
OF_CAPTIONS = ("ncl", "noise")  # kinds that say something else of another caption
PRODUCTS = (*OF_CAPTIONS, "near_reference")  # kinds that a GPU makes faster


def score_derived(
    data: Dataset,
    configs: Sequence[ScorerConfig],
    workers: Workers | int = 0,
    captioner: str = "",
) -> None:
    """Score with every config that has an `of`; the others are passed over.

    captioner: score the captions that it has generated, of which `scores_<of>@<captioner>` is
    there, by what was fitted on the original ones.
    Raises ValueError where the scorer named by `of` has stored nothing, or nothing to compute from,
    and for a table that was made with another config.
    """
    chosen = [c for c in configs if isinstance(c, Derived)]
    if captioner:
        chosen = [c for c in chosen if c.kind in OF_CAPTIONS]
    claims = [_claim(data, c, workers, captioner) for c in chosen]
    model = any(c.kind in PRODUCTS for c in chosen)
    work = partial(_score_part, data, captioner)
    run_units(data, chosen, claims, work, workers, label="derive", model=model)


def _claim(data: Dataset, config: Derived, workers: Workers | int, captioner: str) -> Claim:
    of, table = require(data, config, ("image_emb",)), f"scores_{config.name}"
    if captioner:
        known = data.artifact_in_use(table) or _artifact(data, config, of, workers)
        made = ("urls", "samples", f"captions_{captioner}", f"{of}@{captioner}")
        return data.claim(f"{table}@{captioner}", config, of=made, artifact=known)
    inputs = ("urls", "samples", of)
    if table in data.tables():
        data.claim(table, config, of=inputs)  # a changed config is refused before anything is fit
    return data.claim(table, config, of=inputs, artifact=_artifact(data, config, of, workers))


def _artifact(data: Dataset, config: Derived, of: str, workers: Workers | int) -> str:
    """The key of what the scorer is fitted to; "" for a head.

    A frozen one is kept as long as the embeddings are of the space that it was fitted in.
    """
    if isinstance(config, HeadScorer):
        return ""
    known = data.artifact_in_use(f"scores_{config.name}")
    if config.refit == "frozen" and known.startswith(f"{space_of(data, of)}-"):
        return known
    return FITS[config.kind][0](data, config, workers)


def _score_part(data: Dataset, captioner: str, part: int, units: Sequence[Unit]) -> Stats:
    rows = 0
    for config, claim, scorer in units:
        found = []
        for batch in stored_batches(data, part, claim.of[-1], captioner):
            found.append(to_table(batch, scorer(batch), config.kind))
            rows += len(batch)
        data.write(claim, part, pa.concat_tables(found))
    return {"rows": rows}


def stored_batches(
    data: Dataset, part: int, table: str, captioner: str = "", size: int = ROWS
) -> Iterator[Batch]:
    """A part's rows of scores_<of>, without images; the stored error is the image's. Where there
    are no rows, one batch without pairs.

    columns: samples__sha256, and every stored column; an embedding is an array per pair, None
    where there is none.
    """
    rows, hashes = data.read(table, part), hashes_of(data, part)
    captions = _generated(data, part, captioner) if captioner else captions_of(data, part)
    for start in range(0, max(1, rows.num_rows), size):
        block = rows.slice(start, size)
        uids, ids = block["uid"].to_pylist(), block["caption_id"].to_pylist()
        columns = {n: _cells(block[n]) for n in block.column_names if n not in ("uid", "error")}
        yield Batch(
            uids=uids,
            caption_ids=ids,
            captions=[captions[i] for i in ids],
            images=[None] * len(uids),
            image_errors=block["error"].to_pylist(),
            columns={"samples__sha256": [hashes[u] for u in uids], **columns},
        )


def _generated(data: Dataset, part: int, captioner: str) -> dict[str, str | None]:
    """The captions that were generated for a part's pairs, by caption_id."""
    rows = data.read(f"captions_{captioner}", part, ["caption_id", "caption"]).to_pydict()
    return dict(zip(rows["caption_id"], rows["caption"], strict=True))


def _cells(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_fixed_size_list(column.type):
        return list(column.to_pylist())
    vectors: Iterator[Array] = iter(embeddings(column.drop_null()))
    return [next(vectors) if there else None for there in column.is_valid().to_pylist()]
