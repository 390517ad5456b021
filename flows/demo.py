"""Demo: a real pool with planted faults, curated, trained on, and judged against the truth.

The recipe is flows/configs/demo.yaml; this file makes the pool, serves it on loopback, runs the
recipe and says what came out. A second run finds everything done.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.ablate import summary
from curate.dataset import Dataset
from curate.demo.pool import PoolSummary, base_url_of, make_pool
from curate.demo.verdict import verdict
from curate.demo.web import serve
from curate.funnel import funnel, funnel_table
from curate.query import query
from curate.report import report
from flows.curation import curation
from schemas.configs import CurationConfig, load_config

RECIPE = Path(__file__).parent / "configs" / "demo.yaml"
HOST = "127.0.0.1"
PORT = 8765


@dataclass(frozen=True)
class Size:
    """How large a demo is."""

    drawings: int | None  # None: all
    held_out: int
    bootstrap_steps: int
    samples_seen: int


FULL = Size(drawings=None, held_out=400, bootstrap_steps=150, samples_seen=30_000)
QUICK = Size(drawings=1000, held_out=150, bootstrap_steps=100, samples_seen=6_400)


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    workers: int = 2,
    train_seeds: Sequence[int] = (0,),
) -> str:
    """Make, curate, train and judge under `out`; returns the text to print.

    Raises ValueError where `out` holds a demo of another seed or size.
    """
    out, size = out.resolve(), QUICK if quick else FULL
    refuse_another(out / "pool" / "pool.json", seed, size)
    url = base_url_of(out / "pool") or f"http://{HOST}:{free_port()}"
    pool = make_pool(
        out / "pool", drawings=size.drawings, held_out=size.held_out, seed=seed, base_url=url
    )
    config = recipe(out, pool, size, seed, workers, train_seeds)
    with serve(out / "pool", host=HOST, port=int(url.rsplit(":", 1)[1])) as web:
        metrics = curation(config)
    data = Dataset(config.root)
    page = report(data, out / "report.html", recipe=config)
    return text(out, data, pool, web.forbidden_hits, summary(metrics, "random"), page)


def refuse_another(made: Path, seed: int, size: Size) -> None:
    """Raises ValueError where the pool that is there was made with other arguments."""
    if not made.is_file():
        return
    found = json.loads(made.read_text())["arguments"]
    if (found["seed"], found["drawings"]) != (seed, size.drawings):
        other = f"seed {found['seed']}, {found['drawings'] or 'all'} drawings"
        raise ValueError(f"{made.parents[1]} holds another demo ({other}): choose another --out")


def free_port() -> int:
    """PORT where nobody listens there, else any. The pool's URLs name it, and so do the uids and
    all draws: another port gives figures that differ a little.
    """
    for port in (PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise ValueError(f"no port of {HOST} is free: close a program that listens there")


def recipe(
    out: Path,
    pool: PoolSummary,
    size: Size,
    seed: int,
    workers: int,
    train_seeds: Sequence[int],
) -> CurationConfig:
    """flows/configs/demo.yaml with this demo's folders, host, seeds and size."""
    raw = load_config(RECIPE).model_dump(mode="json")
    raw["root"] = str(out / "dataset")
    raw["ingest"][0] |= {"path": str(pool.urls), "seed": seed}
    raw["download"] |= {"allow_hosts": [pool.base_url.removeprefix("http://")]}
    raw["evaluations"][0]["path"] = str(pool.held_out)
    raw["trainer"]["samples_seen"] = size.samples_seen
    raw["ablate"]["seeds"] = list(train_seeds)
    raw["workers"]["count"] = workers
    seeded(raw["scorers"] + raw["selectors"], seed)
    for scorer in raw["scorers"]:
        if scorer["kind"] == "bootstrap":
            scorer["steps"] = size.bootstrap_steps
    return CurationConfig.model_validate(raw)


def seeded(units: list[dict[str, Any]], seed: int) -> None:
    """Give every unit that draws this seed."""
    for unit in units:
        if "seed" in unit:
            unit["seed"] = seed


def text(
    out: Path, data: Dataset, pool: PoolSummary, forbidden: int, results: str, page: Path
) -> str:
    """What the demo ends by printing."""
    dropped = query(data, "SELECT uid FROM decisions WHERE NOT keep ORDER BY uid LIMIT 1")
    sql = "SELECT reason, count(*) AS pairs FROM decisions GROUP BY 1 ORDER BY 2 DESC"
    parts = [
        funnel_table(funnel(data)),
        verdict(data, pool.truth),
        f"requests that reached the forbidden address: {forbidden}",
        "held-out retrieval at equal samples seen, in %: the pool as it came (full), as many pairs"
        "\ndrawn blindly (random), and curated",
        results,
        f"dataset  {data.root}\nreport   {page}\n"
        f"shards   {out / 'dataset' / 'exports' / 'curated'}",
        f'try next:\n  uv run curate query {data.root} "{sql}"\n'
        f"  uv run curate show {data.root} {dropped['uid'][0].as_py()[:12]}\n"
        f"  uv run curate report {data.root}",
    ]
    return "\n\n".join(parts)
