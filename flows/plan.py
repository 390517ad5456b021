"""Plan: what a recipe would do, by the recipe and the headers of its lists; touches nothing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from schemas.configs import (
    ClipScorer,
    CurationConfig,
    HeadScorer,
    IngestConfig,
    ItmScorer,
    NclScorer,
    NearReferenceScorer,
    NoiseScorer,
    ScorerConfig,
    SieveScorer,
    TmarsScorer,
    VisualnessScorer,
    WordListScorer,
)

# bytes of one stored image by pixels: JPEG q95 of web photos at 256 px takes about 24 kB
BYTES_PER_PIXEL = {"jpg": 0.37, "webp": 0.22, "png": 1.6}
ROW_BYTES = {"urls": 150, "samples": 160, "scores": 30, "decisions": 12, "subset": 120}
# of a pair in a shard beside its image: tar blocks of three files, a sidecar's row; measured
SHARD_BYTES = 3400
UNKNOWN_ROWS = 1_000_000  # estimates are given per million where a list does not say its length

Stage = tuple[str, str, float]  # its name, what it uses, estimated bytes written


def plan(config: CurationConfig) -> str:
    """The plan as text: stages, models, resources, estimated bytes."""
    counted = [rows_of(source) for source in config.ingest]
    known = [n for n in counted if n is not None]
    rows = sum(known) if known and len(known) == len(counted) else UNKNOWN_ROWS
    basis = (
        f"{rows:,} rows"
        if known and len(known) == len(counted)
        else f"unknown length: per {UNKNOWN_ROWS:,} rows"
    )
    lines = [f"dataset   {config.root} (nothing is written by a dry run)", f"input     {basis}", ""]
    lines += [f"{'stage':11}{'what':58}{'bytes':>10}", "-" * 79]
    found = list(stages(config, rows))
    lines += [f"{s:11}{_short(what):58}{_size(size):>10}" for s, what, size in found]
    total = sum(size for _, _, size in found)
    lines += ["-" * 79, f"{'total':69}{_size(total):>10}", "", f"workers   {_workers(config)}"]
    return "\n".join(lines)


def stages(config: CurationConfig, rows: int) -> Iterator[Stage]:
    """What a run does with a list of `rows` pairs, in the order of the way."""
    d = config.download
    image = d.image_size**2 * BYTES_PER_PIXEL[d.encode_format]
    for source in config.ingest:
        share = rows / len(config.ingest)
        yield "ingest", f"{source.path} ({source.format})", share * ROW_BYTES["urls"]
    what = f"{d.image_size} px {d.resize_mode} {d.encode_format}, {d.concurrency} at once"
    yield "download", what, rows * (image + ROW_BYTES["samples"])
    yield from _judged(config, rows)
    sizes = subset_rows(config, rows)
    for selector in config.selectors:
        what = f"{selector.name} ({selector.kind})"
        yield "compress", what, sizes[selector.name] * ROW_BYTES["subset"]
    for target in config.exports:
        size = sizes.get(target.subset, rows) * (image + SHARD_BYTES)
        yield "export", f"{target.subset} -> {target.out or 'exports/'}", size
    yield from _proved(config)


def _judged(config: CurationConfig, rows: int) -> Iterator[Stage]:
    for scorer in config.scorers:
        yield "score", _model(scorer), rows * (ROW_BYTES["scores"] + embedding_bytes(scorer))
    rules = ", ".join(r.name for r in config.rules) or "no rules: all stay"
    yield "filter", rules, rows * ROW_BYTES["decisions"]
    for captioner in config.captioners:
        size = rows * captioner.num_captions * ROW_BYTES["subset"]
        what = getattr(captioner, "model", "trained on the survivors; codes of all pairs")
        yield "recaption", f"{captioner.kind}: {what}", size
    if config.dedup:
        kinds = ", ".join(f.name for f in config.dedup.finders)
        what = f"{kinds}; keep by {config.dedup.keep_by}"
        yield "dedup", what, rows * ROW_BYTES["decisions"]


def _proved(config: CurationConfig) -> Iterator[Stage]:
    if config.trainer and config.ablate:
        runs = len(config.ablate.subsets) * len(config.ablate.seeds)
        seen = f"{runs} runs x {config.trainer.samples_seen:,} samples seen"
        yield "train", f"{_architecture(config.trainer.model)}, {seen}", 0
    for evaluation in config.evaluations:
        yield "validate", f"{evaluation.kind}: {evaluation.path}", 0


def subset_rows(config: CurationConfig, rows: int) -> dict[str, int]:
    """Pairs of each selector's subset at most: what thresholds, failures and copies take away is
    not known before.
    """
    kept = survivors(config, rows)
    sizes: dict[str, int] = {}
    for selector in config.selectors:
        pool = rows if getattr(selector, "pool", "survivors") == "downloaded" else kept
        if selector.kind == "all":
            sizes[selector.name] = pool
        elif selector.fraction is not None:
            sizes[selector.name] = int(pool * selector.fraction)
        else:  # a `like` that is not of this recipe is a subset of an earlier run
            asked = selector.count or sizes.get(selector.like or "", pool)
            sizes[selector.name] = min(asked, pool)
    return sizes


def survivors(config: CurationConfig, rows: int) -> int:
    """Pairs that the rules with a fraction let pass at most."""
    kept = float(rows)
    for rule in config.rules:
        if rule.keep_top is not None:
            kept = min(kept, rule.keep_top * (rows if rule.of == "pool" else kept))
    return int(kept)


def rows_of(source: IngestConfig) -> int | None:
    """Rows of a local parquet list, from its footers; None where only reading it would tell."""
    paths = [source.path] if isinstance(source.path, str) else source.path
    files: list[str] = []
    for path in paths:
        fs, inner = fsspec.core.url_to_fs(path)
        inner = f"{inner}/*.parquet" if fs.isdir(inner) else inner
        files += (
            [f for f in fs.glob(inner) if str(f).endswith(".parquet")] if "*" in inner else [inner]
        )
    if not files or not all(f.endswith(".parquet") and Path(f).is_file() for f in files):
        return None
    return int(sum(pq.read_metadata(f).num_rows for f in files) * source.sample)


def embedding_bytes(scorer: ScorerConfig) -> float:
    """Bytes of the float16 embeddings of a pair: two, and again two of a cross-fitted scorer."""
    if not getattr(scorer, "embeddings", False):
        return 0
    dims = (
        embed_dim(scorer.model)
        if isinstance(scorer, ClipScorer)
        else getattr(scorer, "embed_dim", 0)
    )
    spaces = 2 if scorer.kind == "bootstrap" else 1
    return 2 * 2 * dims * spaces


def embed_dim(model: str) -> int:
    """Embedding size of an open_clip architecture, from its packaged config; 512 where unknown."""
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "model_configs" / f"{model.replace('/', '-')}.json"
        if file.is_file():
            return int(json.loads(file.read_text())["embed_dim"])
    return 512


def _model(scorer: ScorerConfig) -> str:  # noqa: PLR0911 - a menu
    if isinstance(scorer, ClipScorer | VisualnessScorer | TmarsScorer):
        finder = ", text by PP-OCRv6 small" if isinstance(scorer, TmarsScorer) else ""
        return f"{scorer.name}: {scorer.model} {scorer.pretrained or ''}{finder}"
    if isinstance(scorer, ItmScorer):
        return f"{scorer.name}: {scorer.model}"
    if isinstance(scorer, SieveScorer):
        return f"{scorer.name}: {scorer.captioner} and {scorer.encoder}"
    if isinstance(scorer, HeadScorer):
        return f"{scorer.name}: {scorer.weights} on the embeddings of {scorer.of}"
    if isinstance(scorer, WordListScorer):
        return f"{scorer.name}: the words of {scorer.words}"
    if isinstance(scorer, NclScorer | NoiseScorer | NearReferenceScorer):
        return f"{scorer.name}: from the embeddings of {scorer.of}"
    if scorer.kind == "faces":
        return f"{scorer.name}: libfacedetection at {scorer.detector_side} px, on the CPU"
    if scorer.kind == "bootstrap":
        return f"{scorer.name}: {scorer.folds} small CLIPs, {scorer.steps} steps on the pool itself"
    return f"{scorer.name}: no model"


def _architecture(model: object) -> str:
    return model if isinstance(model, str) else "own CLIP"


def _workers(config: CurationConfig) -> str:
    w = config.workers
    if w.count == 0:
        return "this process, without Ray"
    gpus = "1 GPU each where the cluster has one" if w.gpus is None else f"{w.gpus:g} GPU each"
    where = w.address or "a local Ray cluster"
    return (
        f"{w.count} to {w.max_count or w.count} Ray actors, {w.cpus:g} CPU and {gpus}, on {where}"
    )


def _short(text: str, width: int = 56) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":  # noqa: PLR2004  SI prefixes
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return ""
