"""Plan: what a recipe would do, by the recipe and the headers of its lists; touches nothing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from schemas.configs import ClipScorer, CurationConfig, IngestConfig, ScorerConfig

# bytes of one stored image by pixels: JPEG q95 of web photos at 256 px takes about 24 kB
BYTES_PER_PIXEL = {"jpg": 0.37, "webp": 0.22, "png": 1.6}
ROW_BYTES = {"urls": 150, "samples": 160, "scores": 30, "decisions": 12, "subset": 120}
UNKNOWN_ROWS = 1_000_000  # estimates are given per million where a list does not say its length


def plan(config: CurationConfig) -> str:
    """The plan as text: stages, models, resources, estimated bytes."""
    counted = [rows_of(source) for source in config.ingest]
    known = [n for n in counted if n is not None]
    rows = sum(known) if len(known) == len(counted) and known else UNKNOWN_ROWS
    basis = (
        f"{rows:,} rows" if known and rows == sum(known) else "unknown length: per 1,000,000 rows"
    )
    lines = [f"dataset   {config.root} (nothing is written by a dry run)", f"input     {basis}", ""]
    lines += [f"{'stage':11}{'what':58}{'bytes':>10}", "-" * 79]
    lines += [f"{s:11}{what:58}{_size(size):>10}" for s, what, size in stages(config, rows)]
    total = sum(size for _, _, size in stages(config, rows))
    lines += ["-" * 79, f"{'total':69}{_size(total):>10}", "", f"workers   {_workers(config)}"]
    return "\n".join(lines)


def stages(config: CurationConfig, rows: int) -> Iterator[tuple[str, str, float]]:
    """(stage, what it uses, estimated bytes written), in the order of the way."""
    for source in config.ingest:
        yield "ingest", _short(f"{source.path} ({source.format})"), rows * ROW_BYTES["urls"]
    d = config.download
    image = d.image_size**2 * BYTES_PER_PIXEL[d.encode_format]
    what = f"{d.image_size} px {d.resize_mode} {d.encode_format}, {d.concurrency} at once"
    yield "download", what, rows * (image + ROW_BYTES["samples"])
    for scorer in config.scorers:
        yield (
            "score",
            _short(_model(scorer)),
            rows * (ROW_BYTES["scores"] + embedding_bytes(scorer)),
        )
    rules = ", ".join(r.name for r in config.rules) or "no rules: all stay"
    yield "filter", _short(rules), rows * ROW_BYTES["decisions"]
    for captioner in config.captioners:
        many = rows * captioner.num_captions
        yield (
            "recaption",
            _short(f"{captioner.kind}: {captioner.model}"),
            many * ROW_BYTES["subset"],
        )
    if config.dedup:
        kinds = ", ".join(f.name for f in config.dedup.finders)
        yield (
            "dedup",
            _short(f"{kinds}; keep by {config.dedup.keep_by}"),
            rows * ROW_BYTES["decisions"],
        )
    for selector in config.selectors:
        yield "compress", f"{selector.name} ({selector.kind})", rows * ROW_BYTES["subset"]
    for target in config.exports:
        yield "export", _short(f"{target.subset} -> {target.out or 'exports/'}"), rows * image
    if config.trainer and config.ablate:
        runs = len(config.ablate.subsets) * len(config.ablate.seeds)
        seen = f"{runs} runs x {config.trainer.samples_seen:,} samples seen"
        yield "train", _short(f"{_architecture(config.trainer.model)}, {seen}"), 0
    for evaluation in config.evaluations:
        yield "validate", _short(f"{evaluation.kind}: {evaluation.path}"), 0


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
    """Bytes of the two float16 embeddings of a pair."""
    if not getattr(scorer, "embeddings", False):
        return 0
    dims = (
        embed_dim(scorer.model)
        if isinstance(scorer, ClipScorer)
        else getattr(scorer, "embed_dim", 0)
    )
    return 2 * 2 * dims


def embed_dim(model: str) -> int:
    """Embedding size of an open_clip architecture, from its packaged config; 512 where unknown."""
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "model_configs" / f"{model.replace('/', '-')}.json"
        if file.is_file():
            return int(json.loads(file.read_text())["embed_dim"])
    return 512


def _model(scorer: ScorerConfig) -> str:
    if isinstance(scorer, ClipScorer):
        return f"{scorer.name}: {scorer.model} {scorer.pretrained or ''}"
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
