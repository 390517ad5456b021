"""Recaption: samples, decisions_quality -> captions_*.

Works on the survivors of the rules and on pairs that failed only rules whose fault is the pair's: a
wrong caption can
be repaired, a bad image cannot. Captions are variants beside the original one; nothing is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import models
from curate.dataset import Claim, Dataset, digest
from curate.engine import Stats, Work, run_parts
from curate.shards import batches
from models.base import Batch, Captioner
from schemas.configs import CaptionerConfig, Rule, Workers
from schemas.tables import CAPTIONS, caption_id_of


def recaption(
    data: Dataset,
    configs: Sequence[CaptionerConfig],
    rules: Sequence[Rule],
    workers: Workers | int = 0,
) -> None:
    """Caption the images that are worth it with every captioner; one table each."""
    hopeless = {name for r in rules if r.fault == "image" for name in (r.name, f"unknown {r.name}")}
    of = [
        "urls",
        "samples",
        *(t for t in ("decisions_quality", "rules_failed") if t in data.tables()),
    ]
    for config in configs:
        claim = data.claim(
            f"captions_{config.name}", config, of=of, artifact=digest(sorted(hopeless))
        )

        def build(config: CaptionerConfig = config, claim: Claim = claim) -> Work:
            captioner = models.captioner(config)
            return lambda part: _caption_part(data, part, config, claim, captioner, hopeless)

        run_parts(build, data.missing(claim), workers, label=f"recaption {config.name}", model=True)
        data.publish(claim)


def _caption_part(
    data: Dataset,
    part: int,
    config: CaptionerConfig,
    claim: Claim,
    captioner: Captioner,
    hopeless: set[str],
) -> Stats:
    out: list[pa.Table] = [CAPTIONS.empty_table()]
    for batch in batches(
        data, part, keep=_worthwhile(data, part, hopeless), size=config.batch_size
    ):
        out.append(to_rows(batch, *captioner(batch), config))
    rows = pa.concat_tables(out).sort_by([("uid", "ascending"), ("caption_id", "ascending")])
    data.write(claim, part, rows)
    return {"rows": rows.num_rows}


def _worthwhile(data: Dataset, part: int, hopeless: set[str]) -> list[bool]:
    """By row of samples: whether a caption would help the pair."""
    uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
    if "rules_failed" not in data.tables():
        return [True] * len(uids)
    failed = data.read("rules_failed", part, ["uid", "rule"]).to_pydict()
    out = {u for u, rule in zip(failed["uid"], failed["rule"], strict=True) if rule in hopeless}
    return [u not in out for u in uids]


def to_rows(
    batch: Batch,
    captions: list[list[str] | None],
    errors: list[str | None],
    config: CaptionerConfig,
) -> pa.Table:
    """A captioner's answers as rows of captions_<name>; an image without one is a row with its
    error.
    """
    claimed = config.claimed()
    prompt_hash = digest(claimed.get("prompt", ""))
    decode = json.dumps(
        {k: v for k, v in claimed.items() if k not in ("kind", "name", "model", "prompt", "seed")},
        sort_keys=True,
    )
    generator = f"{config.kind}:{config.model}"
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
