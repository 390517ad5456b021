"""Recaption: samples, decisions_quality -> captions_*, codes_*.

Works on the survivors of the rules and on pairs that failed only rules whose fault is the pair's: a
wrong caption can
be repaired, a bad image cannot. Captions are variants beside the original one; nothing is replaced.
A codebook captioner is trained on the survivors first, and writes the codes of every downloaded
pair (codes.py) in a pass of its own: rules change more often than images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

import models
from curate.claims import Claim, digest
from curate.codes import write_codes
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits import codebook
from curate.shards import batches
from curate.storage import as_local
from models.base import Batch, Captioner
from schemas.configs import CaptionerConfig, CodebookCaptioner, Rule, Workers
from schemas.tables import CAPTIONS, caption_id_of

NO_DECODING = ("kind", "name", "model", "prompt", "seed")  # knobs that other columns tell


def recaption(
    data: Dataset,
    configs: Sequence[CaptionerConfig],
    rules: Sequence[Rule],
    workers: Workers | int = 0,
) -> None:
    """Caption the images that are worth it with every captioner; one table each.

    Raises ValueError for a model that cannot be had or trained, or a table of another config.
    """
    hopeless = {name for r in rules if r.fault == "image" for name in (r.name, f"unknown {r.name}")}
    of = [
        "urls",
        "samples",
        *(t for t in ("decisions_quality", "rules_failed") if t in data.tables()),
    ]
    for config in configs:
        claim = data.claim(f"captions_{config.name}", config, of=of)
        if isinstance(config, CodebookCaptioner):
            claim = replace(claim, artifact=_trained(data, config, workers))
            write_codes(data, config, claim.artifact, workers)

        def build(config: CaptionerConfig = config, claim: Claim = claim) -> Work:
            captioner = _load(data, config, claim.artifact)
            return lambda part: _caption_part(data, part, config, claim, captioner, hopeless)

        run_parts(build, data.missing(claim), workers, label=f"recaption {config.name}", model=True)
        data.publish(claim)


def _trained(data: Dataset, config: CodebookCaptioner, workers: Workers | int) -> str:
    """The key of the trained captioner, which a frozen one keeps."""
    known = data.artifact_in_use(f"captions_{config.name}")
    return known if known and config.refit == "frozen" else codebook.fit(data, config, workers)


def _load(data: Dataset, config: CaptionerConfig, key: str) -> Captioner:
    if not key:
        return models.captioner(config)
    with as_local(data.fs, f"{data.path}/_artifacts/{config.name}/{key}") as folder:
        return models.captioner(config, folder)


def _caption_part(
    data: Dataset,
    part: int,
    config: CaptionerConfig,
    claim: Claim,
    captioner: Captioner,
    hopeless: set[str],
) -> Stats:
    wanted = _worthwhile(data, part, hopeless)
    known = _known(data, claim, part, wanted)
    todo = wanted - set(known["uid"].to_pylist())
    uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
    out = [known]
    for batch in batches(data, part, keep=[u in todo for u in uids], size=config.batch_size):
        out.append(to_rows(batch, *captioner(batch), config, claim.artifact))
    rows = pa.concat_tables(out).sort_by([("uid", "ascending"), ("caption_id", "ascending")])
    data.write(claim, part, rows)
    return {"rows": len(todo)}


def _known(data: Dataset, claim: Claim, part: int, wanted: set[str]) -> pa.Table:
    """What this captioner has said before of pairs of this part: a new rule costs no inference."""
    rows = data.previous(claim, part)
    if rows is None:
        return CAPTIONS.empty_table()
    kept = [u in wanted for u in rows["uid"].to_pylist()]
    return rows.filter(pa.array(kept, pa.bool_())).replace_schema_metadata(None).cast(CAPTIONS)


def _worthwhile(data: Dataset, part: int, hopeless: set[str]) -> set[str]:
    """The uids of a part whose pair a caption would help."""
    samples = data.read("samples", part, ["uid", "status"]).to_pydict()
    pairs = zip(samples["uid"], samples["status"], strict=True)
    downloaded = {u for u, status in pairs if status == "success"}
    if "rules_failed" not in data.tables():
        return downloaded
    failed = data.read("rules_failed", part, ["uid", "rule"]).to_pydict()
    pairs = zip(failed["uid"], failed["rule"], strict=True)
    return downloaded - {u for u, rule in pairs if rule in hopeless}


def to_rows(
    batch: Batch,
    captions: list[list[str] | None],
    errors: list[str | None],
    config: CaptionerConfig,
    artifact: str = "",
) -> pa.Table:
    """A captioner's answers as rows of captions_<name>; an image without one is a row with its
    error. artifact: key of what was trained on the pool.
    """
    claimed, decoding = config.claimed(), getattr(config, "decoding", None)
    prompt_hash = digest(claimed.get("prompt", ""))
    decode = json.dumps(
        {k: v for k, v in claimed.items() if k not in NO_DECODING and k in (decoding or claimed)},
        sort_keys=True,
    )
    generator = f"{config.kind}:{artifact or getattr(config, 'model', '')}"
    rows: list[dict[str, Any]] = []
    for uid, texts, error in zip(batch.uids, captions, errors, strict=True):
        for index, text in enumerate([None] if texts is None else texts):
            identity = caption_id_of(uid, generator, prompt_hash, decode, config.seed, index)
            rows.append(
                dict.fromkeys(CAPTIONS.names)
                | {
                    "uid": uid,
                    "caption_id": identity,
                    "caption": text,
                    "origin": "generated",
                    "generator": generator,
                }
                | {
                    "prompt_hash": prompt_hash,
                    "decode": decode,
                    "seed": config.seed,
                    "error": error,
                }
            )
    return pa.Table.from_pylist(rows, schema=CAPTIONS)
