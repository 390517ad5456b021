"""Selectors on a noisy pool: which quarter of openclipart trains the best model?

    uv run python tests/bench/selection.py [--quick] [--out DIR]

1. The pool and the clean sets held out of it (openclipart.py); the pool is served on loopback and
   taken in by `curate`: downloaded, scored by a bootstrap, captioned by a codebook captioner.
2. Every selector takes a quarter. `refined` is the codebook's quarter with TL;DR's captions, the
   original and the generated one in one text.
3. `ablate`: each subset trains a small CLIP with 30 000 samples seen, and as many epochs as those
   are of the full pool; held-out retrieval and zero-shot classification by folder. The main ones
   have three seeds, the others one.

What is done is kept in --out; a killed run goes on. Prints both tables and a JSON line of the
means.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.ablate import ablate, at_terms, summary, values
from curate.cli import ENVIRONMENT
from curate.dataset import Dataset
from schemas.configs import AblateConfig, CurationConfig
from tests.bench.openclipart import prepare
from tests.bench.web_server import Host, Page, web_server

CACHE = Path.home() / ".cache" / "curate-bench"
FRACTION, SEEDS, SAMPLES = 0.25, (0, 1, 2), 30_000
MAIN = ("full", "random", "top", "cluster", "codebook", "balance", "refined")
OTHERS = ("d4", "density", "kcenter", "facility", "ncl_normsim")
TERMS = ("samples", "epochs")
METRICS = ("retrieval/recall@10", "folders/acc1", "folders/mean_per_class_recall")
MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "patch_size": 16, "width": 128, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 24, "layers": 0},
}


def selectors() -> list[dict[str, Any]]:
    """All of them; each takes a quarter of the pool."""
    quarter = {"fraction": FRACTION}
    codebook = {"kind": "codebook", "codes": "codebook", **quarter}
    return [
        {"kind": "all", "name": "full"},
        {"kind": "random", **quarter},
        {"kind": "top", "by": "scores_bootstrap__clip_score", **quarter},
        {"kind": "cluster", **quarter},
        codebook,
        {"kind": "balance", "min_count": 2, **quarter},
        {**codebook, "name": "refined", "choose": {"use": "concat"}},
        {"kind": "d4", **quarter},
        {"kind": "density", "clusters": 100, **quarter},
        {"kind": "kcenter", **quarter},
        {"kind": "facility", **quarter},
        {"kind": "ncl_normsim", "embeddings": "bootstrap", "by_fraction": 0.5, **quarter},
    ]


def recipe(out: Path, pool: Path, samples: int) -> dict[str, Any]:
    """The recipe, as YAML would have it."""
    chosen = selectors()
    return {
        "root": str(out / "dataset"),
        "ingest": [{"path": str(out / "urls.parquet"), "batch": "openclipart", "part_rows": 500}],
        "download": {"allow_hosts": ["127.0.0.0/8"], "timeout_s": 60, "deadline_s": 120},
        "scorers": [{"kind": "bootstrap"}, {"kind": "ncl", "of": "bootstrap", "batch": 2048}],
        "captioners": [{"kind": "codebook", "num_captions": 1}],
        "dedup": None,
        "selectors": chosen,
        "exports": [{"subset": name_of(s)} for s in chosen],
        "trainer": {
            "kind": "clip",
            "model": MODEL,
            "vocabulary": 4096,
            "samples_seen": samples,
            "lr": 0.002,
            "warmup": 20,
            "shift": 3,
            "threads": 1,
        },
        "evaluations": [
            {"kind": "retrieval", "path": str(pool / "held_out.parquet")},
            {
                "kind": "zero_shot",
                "name": "folders",
                "path": str(pool / "folders.parquet"),
                "templates": ["{}", "clip art of {}", "{} clip art", "a drawing of {}"],
            },
        ],
        "ablate": {"subsets": MAIN, "seeds": SEEDS, "equal": ["samples", "epochs"]},
        "workers": {"count": 2},
    }


def name_of(selector: dict[str, Any]) -> str:
    return str(selector.get("name", selector["kind"]))


def curated(out: Path, pool: Path, config: CurationConfig, rows: int | None) -> None:
    """Everything up to the exports, done once."""
    from flows.curation import curation

    if (out / "ready").exists():
        return
    listed = pq.read_table(pool / "pool.parquet").slice(0, rows)
    paths = {f"/{number}.png": path for number, path in enumerate(listed["path"].to_pylist())}
    pages = {url: Page(Path(path), content_type="image/png") for url, path in paths.items()}
    host = Host("127.0.0.1")
    with web_server(pages, [host]) as web:
        urls = [web.url(host, url) for url in pages]
        list_of = pa.table({"url": urls, "caption": listed["caption"]})
        shutil.rmtree(out / "dataset", ignore_errors=True)
        pq.write_table(list_of, out / "urls.parquet")
        curation(config.model_copy(update={"ablate": None, "trainer": None}))
    (out / "ready").touch()


def trained(config: CurationConfig, seeds: tuple[int, ...]) -> pa.Table:
    """The rows of `metrics` of all runs; those that are there are not run again."""
    data = Dataset(config.root)
    shards = {e.subset: f"{data.root}/exports/{e.subset}" for e in config.exports}
    found = []
    # the others with the full pool, whose epochs are counted and whose runs are there already
    for subsets, some in ((MAIN, seeds), (("full", *OTHERS), seeds[:1])):
        told = AblateConfig(subsets=subsets, seeds=some, equal=("samples", "epochs"))
        assert config.trainer is not None
        rows = ablate(data, config.trainer, told, config.evaluations, shards, config.workers)
        wanted = MAIN if subsets is MAIN else OTHERS
        found.append(rows.filter(pc.is_in(rows["subset"], pa.array(wanted))))
    return pa.concat_tables(found)


def markdown(metrics: pa.Table, sizes: dict[str, int]) -> str:
    """A table with a row per subset: mean and deviation over seeds, in percent."""
    lines = [
        "| subset | pairs | " + " | ".join(f"{t}: {m}" for t in TERMS for m in METRICS) + " |",
        "|---|---|" + "---|" * len(TERMS) * len(METRICS),
    ]
    for subset in (*MAIN, *OTHERS):
        cells = [
            spread(list(values(at_terms(metrics, terms), subset, metric).values()))
            for terms in TERMS
            for metric in METRICS
        ]
        lines.append(f"| {subset} | {sizes[subset]:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(found: list[float]) -> str:
    """Mean and standard deviation, in percent."""
    more = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{100 * statistics.mean(found):.1f}{more}"


def main() -> None:
    """Prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 200 pairs, 2 seeds, 3 000 samples")
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("curate").setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING)
    out = (told.out or CACHE / f"selection{'-quick' if told.quick else ''}").absolute()
    out.mkdir(parents=True, exist_ok=True)
    samples, seeds = (3_000, SEEDS[:2]) if told.quick else (SAMPLES, SEEDS)
    pool, began = prepare(CACHE), time.perf_counter()
    config = CurationConfig.model_validate(recipe(out, pool, samples))
    curated(out, pool, config, 1_200 if told.quick else None)
    ready = time.perf_counter() - began
    metrics = trained(config, seeds)
    data = Dataset(config.root)
    sizes = {s: data.rows(f"subset_{s}") for s in (*MAIN, *OTHERS)}
    print(markdown(metrics, sizes))
    print("\nagainst random, paired over seeds, 95 % intervals in points:")
    main_ones = metrics.filter(pc.is_in(metrics["subset"], pa.array(MAIN)))
    print(summary(main_ones.filter(pc.is_in(main_ones["metric"], pa.array(METRICS))), "random"))
    figures: dict[str, Any] = {"bench": "selection", "pairs": sizes}
    for terms in TERMS:
        for subset in sizes:
            rows = at_terms(metrics, terms)
            means = [statistics.mean(values(rows, subset, m).values()) for m in METRICS]
            figures[f"{subset}@{terms}"] = [round(mean, 4) for mean in means]
    figures |= {"curation_s": round(ready), "seconds": round(time.perf_counter() - began)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
