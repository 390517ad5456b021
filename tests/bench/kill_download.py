"""How a download gets over being killed: SIGKILL at random moments, then a rerun.

    uv run python tests/bench/kill_download.py              20 kills, some minutes
    uv run python tests/bench/kill_download.py --kills 3

A list of 400 rows in 40 parts, a quarter of them failing in ways that do not change from one time
to the next, is downloaded once without interruption by two Ray workers. Then a download is killed
when the server was asked a random number of times, up to half a second later, so that kills fall
into the writing too: all of its processes at once (three of four times), or one worker alone, which
the run has to survive by itself. Up to three kills on one dataset, then it runs to the end. Tables
and tars are compared byte for byte (`attempts` and stats aside). Prints a small table, then one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from tests.bench.downloaders import OURS, Spec, environment
from tests.bench.processes import descendants, title
from tests.bench.web_server import Host, Page, WebServer, web_server
from tests.fault_server import picture
from tests.flows.contents import contents, different

ROWS, PART_ROWS, AT_MOST = 400, 10, 3
HOSTS = tuple(Host(f"127.0.9.{i}", wait_s=0.02) for i in range(1, 9))
EVERYTHING, ONE_WORKER = "everything", "a worker"
LATER_S = 0.5
POLL_S = 0.002
LIMIT_S = 300.0


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="4 kills")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    wanted, kills, broken = 4 if told.quick else told.kills, [], []
    with tempfile.TemporaryDirectory() as folder, web_server(_pages(), HOSTS) as web:
        at = Path(folder)
        pq.write_table(_list(web), at / "list.parquet")
        _finish(_start(at / "whole"))
        whole = contents(Dataset(str(at / "whole")))
        print(f"{'dataset':>8}{'killed':>12}{'requests':>10}{'parts':>7}{'of':>4}   seconds")
        number = 0
        while len(kills) < wanted:
            draw = random.Random(f"{told.seed} {number}")
            root = at / str(number)
            for _ in range(min(draw.randint(1, AT_MOST), wanted - len(kills))):
                killed = _killed(draw, root, web)
                if not killed:
                    break
                kills.append(killed)
                print(f"{number:>8}{killed:>12}{web.hits():>10}{_parts(root):>7}"
                      f"{ROWS // PART_ROWS:>4}", flush=True)  # fmt: skip
            began = time.perf_counter()
            _finish(_start(root))
            broken += different(contents(Dataset(str(root))), whole)
            print(f"{number:>8}{'whole':>12}{'':>10}{_parts(root):>7}{ROWS // PART_ROWS:>4}"
                  f"{time.perf_counter() - began:>10.1f}", flush=True)  # fmt: skip
            number += 1
    print(f"{len(kills)} kills, {len(broken)} files that differ {broken[:5] or ''}")
    print(json.dumps({"bench": "kill_download", "kills": len(kills), "files": len(whole),
                      "of_a_worker": kills.count(ONE_WORKER), "datasets": number,
                      "different_files": len(broken)}))  # fmt: skip
    sys.exit(bool(broken))


def _pages() -> dict[str, Page]:
    """Every fourth row is missing, forbidden, no image, cut short, or broken off."""
    faults = (
        Page(status=404),
        Page(status=403),
        Page(b"<p>moved</p>", content_type="text/html"),
        Page(picture(1), cut=True),
        Page(reset=True),
    )
    return {
        f"/{i}.jpg": faults[i // 4 % len(faults)] if i % 4 == 0 else Page(picture(i))
        for i in range(ROWS)
    }


def _list(web: WebServer) -> pa.Table:
    urls = [web.url(HOSTS[i % len(HOSTS)], f"/{i}.jpg") for i in range(ROWS)]
    return pa.table({"url": urls, "caption": [f"picture {i}" for i in range(ROWS)]})


def _start(root: Path) -> subprocess.Popen[bytes]:
    """Download into `root`, or go on there; what it says is in a file beside it."""
    spec = Spec(
        urls=str(root.parent / "list.parquet"),
        out=str(root),
        part_rows=PART_ROWS,
        open_requests=8,
        image_size=64,
    )
    with Path(f"{root}.log").open("wb") as log:
        return subprocess.Popen(
            spec.command(OURS), env=environment(), stdout=log, stderr=subprocess.STDOUT
        )


def _finish(child: subprocess.Popen[bytes]) -> None:
    code = child.wait(LIMIT_S)
    if code:
        said = Path(f"{str(child.args[-1]).removesuffix('.json')}.log")  # type: ignore[index]
        raise RuntimeError(f"the download ended with {code}: {said.read_text()[-2000:]}")


def _killed(draw: random.Random, root: Path, web: WebServer) -> str:
    """Start a run and kill it, or one of its workers, at a drawn moment.

    Returns what was killed; empty where the run was over before.
    """
    left = ROWS - PART_ROWS * _parts(root)
    moment = web.hits() + draw.randint(1, max(1, left))
    later_s = draw.uniform(0, LATER_S)
    what = ONE_WORKER if draw.random() < 0.25 else EVERYTHING
    child = _start(root)
    if not _waited(child, lambda: web.hits() >= moment):
        return ""
    with suppress(subprocess.TimeoutExpired):
        child.wait(later_s)
        return ""
    if what == ONE_WORKER:
        workers = [pid for pid in descendants(child.pid) if title(pid).startswith("ray::Map")]
        if workers:
            os.kill(draw.choice(workers), signal.SIGKILL)
        _finish(child)
        return what if workers else ""
    _kill_all(child)
    return what


def _waited(child: subprocess.Popen[bytes], reached: Callable[[], bool]) -> bool:
    """Wait for `reached()`; False where the run ended before."""
    until = time.monotonic() + LIMIT_S
    while child.poll() is None and time.monotonic() < until:
        if reached():
            return True
        time.sleep(POLL_S)
    _finish(child)
    return False


def _kill_all(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver and whatever descends from it, and see all of it gone."""
    found = descendants(child.pid)
    for pid in (child.pid, *found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait()
    until = time.monotonic() + LIMIT_S
    while any(Path(f"/proc/{pid}").exists() and title(pid) for pid in found):
        if time.monotonic() > until:
            raise RuntimeError(f"processes outlive their SIGKILL: {found}")
        time.sleep(POLL_S)


def _parts(root: Path) -> int:
    """Parts of `samples` that are on disk."""
    return sum(1 for path in (root / "samples").glob("*.parquet"))


if __name__ == "__main__":
    main()
