"""Demo: a real pool with planted faults, curated, trained on, and judged against the truth.

The recipe is flows/configs/demo.yaml; this file makes the pool, serves it on loopback, runs the
recipe and prints what came out. A second run finds everything done.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from curate.ablate import summary
from curate.dataset import Dataset
from curate.demo.pool import PoolSummary, make_pool
from curate.demo.verdict import verdict
from curate.demo.web import serve
from curate.funnel import funnel, funnel_table
from curate.query import query
from curate.report import report
from flows.curation import curation
from schemas.configs import CurationConfig, load_config

RECIPE = Path(__file__).parent / "configs" / "demo.yaml"
HOST = "127.0.0.1"
QUICK = {"drawings": 1000, "held_out": 150, "steps": 150, "samples_seen": 2560}


def run_demo(out: Path, *, seed: int = 0, quick: bool = False, workers: int = 2) -> str:
    """Make, curate, train and judge under `out`; returns the text to print."""
    out = out.resolve()
    port = _port(out)
    pool = make_pool(
        out / "pool",
        drawings=QUICK["drawings"] if quick else None,
        held_out=QUICK["held_out"] if quick else 400,
        seed=seed,
        base_url=f"http://{HOST}:{port}",
    )
    config = recipe(out, pool, f"{HOST}:{port}", seed=seed, quick=quick, workers=workers)
    with serve(out / "pool", host=HOST, port=port) as web:
        curation(config)
        forbidden = web.forbidden_hits
    data = Dataset(config.root)
    page = report(data, out / "report.html", recipe=config)
    return _text(out, data, pool, forbidden, page)


def _port(out: Path) -> int:
    """The port that the pool's URLs name: the same one in every run, so that a rerun resumes."""
    made = out / "pool" / "pool.json"
    if made.is_file():
        return int(json.loads(made.read_text())["arguments"]["base_url"].rsplit(":", 1)[1])
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def recipe(
    out: Path, pool: PoolSummary, host: str, *, seed: int, quick: bool, workers: int
) -> CurationConfig:
    """The demo's recipe with its folders, its host and its size."""
    raw = load_config(RECIPE).model_dump(mode="json")
    raw["root"] = str(out / "dataset")
    raw["ingest"][0] |= {"path": str(pool.urls), "seed": seed}
    raw["download"] |= {"allow_hosts": [host]}
    raw["evaluations"][0]["path"] = str(pool.held_out)
    raw["ablate"]["seeds"] = [seed]
    raw["workers"]["count"] = workers
    for unit in [*raw["scorers"], *raw["selectors"]]:
        if "seed" in unit:
            unit["seed"] = seed
    if quick:
        raw["trainer"]["samples_seen"] = QUICK["samples_seen"]
        _set(raw["scorers"], "bootstrap", steps=QUICK["steps"])
    return CurationConfig.model_validate(raw)


def _set(units: list[dict[str, Any]], kind: str, **values: Any) -> None:
    for unit in units:
        if unit["kind"] == kind:
            unit.update(values)


def _text(out: Path, data: Dataset, pool: PoolSummary, forbidden: int, page: Path) -> str:
    some = query(data, "SELECT uid FROM decisions WHERE NOT keep ORDER BY uid LIMIT 1")
    example = some["uid"][0].as_py()[:12]
    sql = "SELECT reason, count(*) AS pairs FROM decisions GROUP BY 1 ORDER BY 2 DESC"
    metrics = query(data, "SELECT * FROM metrics")
    return "\n".join(
        [
            "",
            funnel_table(funnel(data)),
            "",
            verdict(data, pool.truth),
            f"requests that reached the forbidden address: {forbidden}",
            "",
            summary(metrics),
            "",
            f"dataset  {data.root}",
            f"report   {page}",
            f"shards   {Path(data.root) / 'exports' / 'curated'}",
            "",
            "try next:",
            f'  curate query {data.root} "{sql}"',
            f"  curate show {data.root} {example}",
            "  curate run flows/configs/cc3m.yaml --dry-run",
        ]
    )
