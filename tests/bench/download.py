"""Our download against img2dataset's, in turn on the same loopback server.

    uv run python tests/bench/download.py            2 000 rows, of the mix 10 000; three pairs
    uv run python tests/bench/download.py --quick    200 rows, one pair
    uv run python tests/bench/download.py --only c --rows 2000 --part-rows 500 --threads 64

(a) photos, (b) clip-art with decompression bombs, (c) a mix with dead URLs and slow hosts: see
scenarios.py. Both run two workers with the same number of open requests each (256, the default of
both), shards of a tenth of the mix and of a quarter of the others, the same image size, mode and
quality, a time-out of 10 s and no retries; ours also obeys robots.txt. img2dataset has no limit per
host, so ours is as high as all open requests: with its default of 16 a slow host of 290 rows alone
takes 40 s of (c). Rows that count are those where both succeed.

rows/s is over the whole process, from its start to its end: imports, Ray's start and end, reading
the list, all shards. `work` is the same from the first request that the server sees. CPU is that of
all processes of a run (processes.py says how), Ray's daemons included. Memory is the peak of the
sum of PSS, sampled five times a second; `own` is without Ray's daemons. In (b) each of
img2dataset's processes may map 10 GB beside its threads' stacks: it would need 12.7 GB for one 169
Mpx drawing, and two of them the whole machine; what it loses by that is counted.

Prints a table per scenario, whether the goals are met, and last one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.columns import agreement, our_rows, their_rows
from tests.bench.downloaders import OURS, THEIRS, Spec, environment
from tests.bench.pictures import CACHE
from tests.bench.processes import Usage, measure
from tests.bench.scenarios import Scenario, drawn, mixed, photographed
from tests.bench.web_server import Counts, WebServer, web_server

SCENARIOS = {"a": photographed, "b": drawn, "c": mixed}
# a mix needs to be longer than its longest time-out, or that is all that is measured
ROWS, SHARDS = {"a": 2000, "b": 2000, "c": 10_000}, {"a": 4, "b": 4, "c": 10}
LIMIT_S = 3600.0
STACK = 8 << 20  # bytes of a thread's stack
SHOWN = (
    *("seconds", "startup_s", "rows_per_s", "work_rows_per_s", "cpu_s_per_1000"),
    *("startup_cpu_s", "peak_mb", "peak_own_mb"),
)
_RAY = re.compile(r"Ray is up after ([\d.]+) s")


def main() -> None:
    """Run the scenarios in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=SCENARIOS, action="append")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--part-rows", type=int, help="default: ten shards of c, else four")
    parser.add_argument("--threads", type=int, default=256, help="open requests of each worker")
    parser.add_argument("--limit-gb", type=float, default=10, help="img2dataset in (b)")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="keeps outputs and logs there")
    told = parser.parse_args()
    pairs = told.pairs or (1 if told.quick else 3)
    at = told.out or Path(tempfile.mkdtemp(prefix="curate-bench-"))
    at.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in told.only or SCENARIOS:
        rows = told.rows or (200 if told.quick else ROWS[name])
        scenario = SCENARIOS[name](rows, told.cache)
        how = _How(told.part_rows or -(-rows // SHARDS[name]), told.threads, told.limit_gb)
        results[name] = _compare(scenario, pairs, how, at / name)
    if told.out is None:
        shutil.rmtree(at)
    met = all(ok for result in results.values() for _, ok in result["goals"])
    print(json.dumps({"bench": "download", "threads": told.threads, "met": met, **results}))


@dataclass(frozen=True)
class _How:
    """What both are told, and the memory that img2dataset may map in (b)."""

    part_rows: int
    threads: int
    limit_gb: float

    def address_space(self, scenario: Scenario, which: str) -> int | None:
        """Bytes of one process, the stacks of its threads on top."""
        if which == OURS or not scenario.limited:
            return None
        return int(self.limit_gb * 1e9) + self.threads * STACK


class _Plain(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def _compare(scenario: Scenario, pairs: int, how: _How, at: Path) -> dict[str, Any]:
    at.mkdir(exist_ok=True)
    told = f"shards of {how.part_rows} rows, 2 workers with {how.threads} open requests each"
    print(f"\n({scenario.name}) {scenario.about}; {told}; {pairs} pair(s)")
    print(f"  rows: {dict(Counter(row.kind for row in scenario.rows).most_common())}", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], THEIRS: []}
    columns: dict[str, Any] = {}
    with web_server(scenario.pages, scenario.hosts) as web:
        urls = [web.url(row.address, row.path) for row in scenario.rows]
        captions = [f"picture {i}" for i in range(len(urls))]
        pq.write_table(pa.table({"url": urls, "caption": captions}), at / "list.parquet")
        for pair in range(pairs):
            rows = {}
            for which in (THEIRS, OURS):
                usage, counts, rows[which] = _run(scenario, which, web, how, at)
                runs[which].append(_figures(usage, counts))
                print(f"  pair {pair + 1}: {which} {usage.seconds:.1f} s", flush=True)
            columns = agreement(rows[OURS], rows[THEIRS])
            for which in runs:
                _rates(runs[which][-1], columns["both"])
    return _report(scenario, runs, columns)


def _run(
    scenario: Scenario, which: str, web: WebServer, how: _How, at: Path
) -> tuple[Usage, Counts, dict[str, dict[str, Any]]]:
    """One download, measured; its rows by URL."""
    out = at / which
    shutil.rmtree(out, ignore_errors=True)
    spec = Spec(
        urls=str(at / "list.parquet"),
        out=str(out),
        part_rows=how.part_rows,
        open_requests=how.threads,
        ours=scenario.ours,
        theirs=scenario.theirs,
    )
    web.reset()
    usage = measure(
        spec.command(which),
        environment(),
        at / f"{which}.log",
        limit_s=LIMIT_S,
        address_space=how.address_space(scenario, which),
    )
    if usage.code:
        raise RuntimeError(f"{which} ended with {usage.code}: {usage.said}")
    read = our_rows if which == OURS else their_rows
    return usage, web.counts(), read(out)


def _figures(usage: Usage, counts: Counts) -> dict[str, Any]:
    ray = _RAY.search(usage.said)
    return {
        "seconds": usage.seconds,
        "startup_s": counts.first_s - usage.began_s,
        "ray_up_s": float(ray[1]) if ray else None,
        "cpu_s": usage.cpu_s,
        "startup_cpu_s": usage.cpu_until_s(counts.first_s),
        "peak_mb": usage.peak_mb(),
        "peak_own_mb": usage.peak_mb(daemons=False),
        "peak_by_role_mb": usage.peak_by_role(),
        "watching_cpu_s": usage.watching_cpu_s,
        "server": asdict(counts),
    }


def _rates(run: dict[str, Any], rows: int) -> None:
    """Add what is per row where both succeed."""
    run["rows_per_s"] = rows / run["seconds"]
    run["work_rows_per_s"] = rows / (run["seconds"] - run["startup_s"])
    run["cpu_s_per_1000"] = 1000 * run["cpu_s"] / rows


def _report(
    scenario: Scenario, runs: dict[str, list[dict[str, Any]]], columns: dict[str, Any]
) -> dict[str, Any]:
    middle = {w: {n: median(run[n] for run in runs[w]) for n in SHOWN} for w in runs}
    ours, theirs = middle[OURS], middle[THEIRS]
    ratios = {n: ours[n] / theirs[n] for n in SHOWN}
    print(f"{'median':>18}{OURS:>14}{THEIRS:>14}{'ratio':>9}   each run")
    for n in SHOWN:
        each = " ".join(f"{run[n]:.1f}" for w in (OURS, THEIRS) for run in runs[w])
        print(f"{n:>18}{ours[n]:>14.1f}{theirs[n]:>14.1f}{ratios[n]:>9.2f}   {each}")
    for which in runs:
        last, server = runs[which][-1], runs[which][-1]["server"]
        share = server["cpu_s"] / (last["cpu_s"] + server["cpu_s"])
        print(f"{which:>18}  the server had {100 * share:.1f} % of the CPU time, "
              f"{1e3 * server['cpu_s'] / max(1, server['requests']):.2f} ms a request "
              f"({server['requests']} + {server['robots']} of robots.txt); peak MB by role "
              f"{last['peak_by_role_mb']}; Ray up after {last['ray_up_s']} s")  # fmt: skip
    _print_columns(columns)
    goals = _goals(scenario, ratios, ours, theirs, columns)
    for text, ok in goals:
        print(f"{'met' if ok else 'NOT MET':>18}  {text}")
    return {"about": scenario.about, "median": middle, "ratios": ratios, "columns": columns,
            "goals": goals, "runs": runs}  # fmt: skip


def _goals(
    scenario: Scenario,
    ratios: dict[str, float],
    ours: dict[str, float],
    theirs: dict[str, float],
    columns: dict[str, Any],
) -> list[tuple[str, bool]]:
    speed, own, its = ratios["rows_per_s"], ours["peak_own_mb"], theirs["peak_mb"]
    memory = f"{own:.0f} MB without Ray's daemons, {ours['peak_mb']:.0f} with; theirs {its:.0f}"
    goals = [
        (f"{speed:.2f} times the rows/s; goal {scenario.faster:.0f}", speed >= scenario.faster),
        (memory, own <= its),
        (f"columns equal: {columns['differing']} rows differ", not columns["differing"]),
    ]
    if scenario.memory_mb:
        limit = scenario.memory_mb
        goals.append((f"{own:.0f} MB without Ray's daemons; goal {limit:.0f}", own < limit))
    return goals


def _print_columns(columns: dict[str, Any]) -> None:
    print(f"{'rows':>18}  {columns['both']} succeed in both ({columns['turned']} turned by EXIF), "
          f"{columns['only_ours']} only in ours, {columns['only_theirs']} only in img2dataset, "
          f"{columns['neither']} in neither; {columns['missing_theirs']} rows are not in "
          f"img2dataset's output at all, {columns['missing_ours']} not in ours")  # fmt: skip
    for pair, n in columns["failures"]:
        print(f"{n:>18}  {pair}")
    for line in columns["examples"]:
        print(f"{'differs':>18}  {line}")


if __name__ == "__main__":
    main()
