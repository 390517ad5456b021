"""Curated against a random subset of the same size, on the demo's pool: held-out retrieval.

    uv run python tests/bench/curated_vs_random.py [--quick] [--out DIR] [--seeds 3]

Runs the demo with several training seeds at equal samples seen, prints its tables, and last one
JSON line with the paired difference and its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from pathlib import Path

from curate.ablate import paired_difference, values
from curate.cli import ENVIRONMENT
from curate.dataset import Dataset
from curate.demo.verdict import alignment_auc, truth_rows
from curate.query import query
from flows.demo import run_demo

METRIC = "retrieval/recall@10"


def main() -> None:
    """Run, print, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pool-seed", type=int, default=0)
    args = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("curate").setLevel(logging.INFO)
    out = args.out or Path(tempfile.mkdtemp(prefix="curate-bench-"))
    began = time.perf_counter()
    seeds = range(args.seeds)
    print(run_demo(out, seed=args.pool_seed, quick=args.quick, train_seeds=seeds))
    seconds = time.perf_counter() - began
    data = Dataset(str(out.resolve() / "dataset"))
    metrics = query(data, "SELECT * FROM metrics")
    mean, low, high = paired_difference(metrics, "curated", "random", METRIC)
    figures = {
        "bench": "curated_vs_random",
        "metric": METRIC,
        "seeds": args.seeds,
        **{s: list(values(metrics, s, METRIC).values()) for s in ("full", "random", "curated")},
        **{f"{s}_pairs": data.rows(f"subset_{s}") for s in ("full", "random", "curated")},
        "difference": mean,
        "low": low,
        "high": high,
        "auc": alignment_auc(truth_rows(data, out / "pool" / "truth.parquet")),
        "seconds": seconds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
