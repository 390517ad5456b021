"""Score: urls, samples -> scores_*.

One pass: a worker reads a part's images by byte range, decodes them once and runs every scorer on
the same pixels; no scorer that looks at pixels, no decoding. Threads ahead of the model read,
decode, bring the pixels to the model's size (a scorer's `prepare`), look at the files (its `peek`)
and run the scorers that have no model. Scorers with `of` follow, from the tables of others. Nothing
is dropped: a pair that a scorer cannot score is a row of nulls with an `error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from curate.claims import Claim
from curate.dataset import Dataset
from curate.derived import score_derived
from curate.engine import Stats
from curate.fits import FITS
from curate.scoring import Unit, run_units, to_table
from curate.shards import Reader, ahead
from models.base import Batch, Columns
from schemas.configs import CaptionerConfig, ScorerConfig, Workers

BATCH = 256  # pairs, where no scorer asks for more at once
ALIGNMENT = ("clip", "bootstrap", "itm", "tmars")  # whose score depends on caption and image
# run by the threads ahead, on CPU
WITHOUT_MODEL = ("image_stats", "faces", "text_stats", "pii", "word_list")


def score(data: Dataset, configs: Sequence[ScorerConfig], workers: Workers | int = 0) -> None:
    """Score every downloaded pair with every scorer; a scorer that is added later computes only its
    own table.

    Raises ValueError for a model that cannot be had, or a table that was made with another config.
    """
    direct = [c for c in configs if not hasattr(c, "of")]
    claims = [_claim(data, f"scores_{c.name}", c, ("urls", "samples"), workers) for c in direct]
    _pass(data, direct, claims, workers, None)
    score_derived(data, configs, workers)


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
        of = ("urls", "samples", table)
        claims = [_claim(data, f"scores_{c.name}@{captioner.name}", c, of, workers) for c in chosen]
        _pass(data, chosen, claims, workers, table)
        score_derived(data, configs, workers, captioner.name)


def _pass(
    data: Dataset,
    configs: Sequence[ScorerConfig],
    claims: Sequence[Claim],
    workers: Workers | int,
    captions: str | None,
) -> None:
    """Over the images of all parts that lack one of these tables."""
    model = any(c.kind not in WITHOUT_MODEL for c in configs)
    work = partial(_score_part, data, captions)
    run_units(data, configs, claims, work, workers, label="score", model=model)


def _claim(
    data: Dataset, table: str, config: ScorerConfig, of: Sequence[str], workers: Workers | int
) -> Claim:
    if table in data.tables():
        data.claim(table, config, of=of)  # a changed config is refused before anything is fitted
    return data.claim(table, config, of=of, artifact=_fit(data, config, workers))


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


def _score_part(data: Dataset, captions: str | None, part: int, units: Sequence[Unit]) -> Stats:
    generated = None if captions is None else _by_uid(data, part, captions)
    found: dict[str, list[pa.Table]] = {claim.table: [] for _, claim, _ in units}
    rows = 0
    with _reader(data, part, units, generated) as reader:

        def first(run: list[int]) -> tuple[Batch, dict[str, Columns]]:
            batch = reader.read(run)
            batch = batch if generated is None else _again(batch, generated)
            return batch, {k.table: s(batch) for c, k, s in units if c.kind in WITHOUT_MODEL}

        size = max([BATCH, *(getattr(c, "batch_size", 0) for c, _, _ in units)])
        for batch, done in ahead(first, reader.runs(size), reader.cost):
            rows += len(batch)
            for config, claim, scorer in units:
                columns = done[claim.table] if claim.table in done else scorer(batch)
                found[claim.table].append(to_table(batch, columns, config.kind))
    for _, claim, _ in units:
        data.write(claim, part, _joined(found[claim.table]))
    return {"rows": rows}


def _reader(
    data: Dataset, part: int, units: Sequence[Unit], captions: Mapping[str, object] | None
) -> Reader:
    columns: dict[str, list[Any]] = {}
    for config, claim, _ in units:
        if config.kind in FITS:
            columns |= FITS[config.kind][1](data, config, claim.artifact, part)
    return Reader(
        data,
        part,
        keep=None if captions is None else _having(data, part, captions),
        columns=columns,
        decode=any(getattr(config, "pixels", True) for config, _, _ in units),
        prepare={
            f"{config.name}__prepared": scorer.prepare
            for config, _, scorer in units
            if hasattr(scorer, "prepare")
        },
        peek={
            f"{config.name}__peeked": scorer.peek
            for config, _, scorer in units
            if hasattr(scorer, "peek")
        },
    )


def _joined(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).sort_by([("uid", "ascending"), ("caption_id", "ascending")])


def _by_uid(data: Dataset, part: int, table: str) -> dict[str, list[tuple[str, str]]]:
    """(caption_id, caption) of the captions that were generated for each pair of a part."""
    found: dict[str, list[tuple[str, str]]] = {}
    rows = data.read(table, part, ["uid", "caption_id", "caption"]).to_pydict()
    for uid, *caption in zip(rows["uid"], rows["caption_id"], rows["caption"], strict=True):
        if caption[1] is not None:
            found.setdefault(uid, []).append((caption[0], caption[1]))
    return found


def _having(data: Dataset, part: int, captions: Mapping[str, object]) -> list[bool]:
    """By row of samples: whether the pair has captions."""
    return [u in captions for u in data.read("samples", part, ["uid"])["uid"].to_pylist()]


def _again(batch: Batch, captions: Mapping[str, list[tuple[str, str]]]) -> Batch:
    """The same images once more, each with the captions that were generated for it."""
    rows = [(at, *caption) for at, uid in enumerate(batch.uids) for caption in captions[uid]]
    return Batch(
        uids=[batch.uids[at] for at, _, _ in rows],
        caption_ids=[caption_id for _, caption_id, _ in rows],
        captions=[caption for _, _, caption in rows],
        images=[batch.images[at] for at, _, _ in rows],
        image_errors=[batch.image_errors[at] for at, _, _ in rows],
        columns={name: [values[at] for at, _, _ in rows] for name, values in batch.columns.items()},
    )
