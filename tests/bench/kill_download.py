"""How a download gets over being killed: SIGKILL at random moments, then a rerun.

    uv run python tests/bench/kill_download.py              20 kills, some minutes
    uv run python tests/bench/kill_download.py --kills 3

A list of 400 rows in 40 parts, a quarter of them failing in ways that do not change from one time
to the next, is downloaded once without interruption by two Ray workers. Then a download is killed
when the server was asked a random number of times, up to half a second later, so that kills fall
into the writing too: all of its processes at once, or, every fourth time, one worker alone, which
the run has to survive by itself. Up to three kills on one dataset, then it runs to the end. Tables
and tars are compared byte for byte (`attempts` and stats aside).

Half as many retries (--retry-failed) are killed: of a list of which a quarter was missing and is
there again. Then all of that goes missing once more, and the next retry has to publish every image
that the killed one had written; the last one, when all is there, has to end as one that nobody
killed. Prints a small table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
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
from tests.fault_server import FaultServer, fault_server, picture
from tests.flows.contents import contents, different, rows_of

ROWS, PART_ROWS, AT_MOST = 400, 10, 3
HOSTS = tuple(Host(f"127.0.9.{i}", wait_s=0.02) for i in range(1, 9))
EVERYTHING, ONE_WORKER, RETRY = "everything", "a worker", "a retry"
WORKER = "ray::_Worker"  # its title, and more while it is at work
RATE = 40.0  # requests per second of a retry, so that it lasts
LATER_S = 0.5
POLL_S = 0.002
LIMIT_S = 300.0


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="4 kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, metavar=("LIST", "ROOT", "RETRY"))
    told = parser.parse_args()
    if told.child:
        _downloaded(told.child[0], told.child[1], retry=bool(int(told.child[2])))
        return
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
                what = ONE_WORKER if len(kills) % 4 == 1 else EVERYTHING
                killed = _killed(draw, root, web, what)
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
    lost, unlike = _retries(wanted // 2, told.seed)
    broken += unlike
    print(f"{len(kills)} kills, {len(broken)} files that differ {broken[:5] or ''}")
    print(json.dumps({"bench": "kill_download", "kills": len(kills), "files": len(whole),
                      "of_a_worker": kills.count(ONE_WORKER), "datasets": number,
                      "different_files": len(broken), "retries": wanted // 2,
                      "lost_by_retries": lost}))  # fmt: skip
    sys.exit(bool(broken or lost))


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
        words = [str(word) for word in child.args]  # type: ignore[union-attr]
        root = words[-2] if "--child" in words else words[-1].removesuffix(".json")
        said = Path(f"{root}.log")
        raise RuntimeError(f"the download ended with {code}: {said.read_text()[-2000:]}")


def _killed(draw: random.Random, root: Path, web: WebServer, what: str) -> str:
    """Start a run and kill it, or one of its workers, at a drawn moment.

    Returns what was killed; empty where the run was over before.
    """
    left = ROWS - PART_ROWS * _parts(root)
    moment = web.hits() + draw.randint(1, max(1, left))
    later_s = draw.uniform(0, LATER_S)
    child = _start(root)
    if not _waited(child, lambda: web.hits() >= moment):
        return ""
    with suppress(subprocess.TimeoutExpired):
        child.wait(later_s)
        return ""
    if what == ONE_WORKER:
        return what if _kill_worker(draw, child, root) else ""
    _kill_all(child)
    return what


def _kill_worker(draw: random.Random, child: subprocess.Popen[bytes], root: Path) -> bool:
    """SIGKILL a worker and see the run end well without it; False where it had none left.

    Raises RuntimeError where a run that has parts to do has no process that looks like a worker.
    """
    workers = [pid for pid in descendants(child.pid) if title(pid).startswith(WORKER)]
    for pid in draw.sample(workers, 1 if workers else 0):
        os.kill(pid, signal.SIGKILL)
    at_work = _parts(root) < ROWS // PART_ROWS
    said = {title(pid) for pid in descendants(child.pid)} if not workers else set()
    _finish(child)
    if not workers and at_work and any(words.startswith("ray::") for words in said):
        raise RuntimeError(f"no worker is called {WORKER}: {sorted(words[:60] for words in said)}")
    return bool(workers)


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


def _retries(wanted: int, seed: int) -> tuple[int, list[str]]:
    """Kill that many retries; returns how many images they lost, and rows that differ at the end.

    Each gets as far as a drawn number of requests.
    """
    lost, unlike = 0, list[str]()
    with tempfile.TemporaryDirectory() as folder, fault_server() as web:
        at = Path(folder)
        web.http.handle_error = lambda *_: None  # type: ignore[method-assign] - the killed hang up
        back = _serve(web)
        urls = [web.url(f"/{i}.jpg") for i in range(ROWS)]
        pq.write_table(pa.table({"url": urls, "caption": urls}), at / "list.parquet")
        _finish(_run(at / "first"))
        web.files.update(back)
        shutil.copytree(at / "first", at / "whole")
        _finish(_run(at / "whole", retry=True))
        whole = _images(at / "whole")
        if len(whole) != ROWS:
            raise RuntimeError(f"a retry that nobody killed has {len(whole)} of {ROWS} images")
        for number in range(wanted):
            root = at / f"retry{number}"
            shutil.copytree(at / "first", root)
            written = _killed_retry(random.Random(f"{seed} retry {number}"), root, web)
            for path in back:
                del web.files[path]
            _finish(_run(root, retry=True))
            kept = _images(root).keys()
            lost += len(written - kept)
            web.files.update(back)
            _finish(_run(root, retry=True))
            found = _images(root)
            unlike += [uid for uid in whole if found.get(uid) != whole[uid]]
            print(f"{number:>8}{RETRY:>12}: it had written {len(written)} images of {ROWS}, "
                  f"{len(written - kept)} were lost", flush=True)  # fmt: skip
    return lost, unlike


def _serve(web: FaultServer) -> dict[str, tuple[str, bytes]]:
    """Serve all but every fourth picture; returns the others."""
    pages = {f"/{i}.jpg": ("image/jpeg", picture(i)) for i in range(ROWS)}
    back = {path: page for i, (path, page) in enumerate(pages.items()) if i % 4 == 0}
    web.files.update({path: page for path, page in pages.items() if path not in back})
    return back


def _killed_retry(draw: random.Random, root: Path, web: FaultServer) -> set[str]:
    """The uids of the images that are on disk when a retry is killed in the midst of its work.

    Raises RuntimeError where it was over before, or had written nothing that is not published.
    """
    before = _written(root)
    moment = web.hits.total() + draw.randint(ROWS // 10, ROWS // 5)
    child = _run(root, retry=True)
    if not _waited(child, lambda: web.hits.total() >= moment and _written(root) > before):
        raise RuntimeError("the retry was over before it could be killed")
    _kill_all(child)
    return _written(root)


def _written(root: Path) -> set[str]:
    """The uids of all images in any generation of `samples` on disk, published or not."""
    found: set[str] = set()
    for path in (root / "samples").glob("*.parquet"):
        rows = pq.read_table(path, columns=["uid", "status"]).to_pylist()
        found |= {row["uid"] for row in rows if row["status"] == "success"}
    return found


def _images(root: Path) -> dict[str, bytes]:
    """The bytes of the published images by uid."""
    data = Dataset(str(root))
    return {
        row["uid"]: data.fs.cat_file(
            data.tar_path(row["shard"]), row["offset"], row["offset"] + row["size"]
        )
        for row in rows_of(data, "samples")
        if row["status"] == "success"
    }


def _run(root: Path, *, retry: bool = False) -> subprocess.Popen[bytes]:
    """Download the list beside `root`, or what failed of it, in a process of its own."""
    words = [str(root.parent / "list.parquet"), str(root), str(int(retry))]
    with Path(f"{root}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "--child", *words],
            **{"env": environment(), "stdout": log, "stderr": subprocess.STDOUT},
        )


def _downloaded(urls: str, root: str, *, retry: bool) -> None:
    from curate.download import download
    from curate.ingest import ingest
    from schemas.configs import DownloadConfig, IngestConfig, Workers

    data = Dataset(root)
    if not retry:
        ingest(data, IngestConfig(path=urls, part_rows=PART_ROWS, batch="bench"))
    config = DownloadConfig(
        image_size=64,
        retries=0,
        per_host_rate=RATE if retry else None,
        allow_hosts=("127.0.0.0/8",),
    )
    download(data, config, Workers(count=2), retry_failed=retry)


def _parts(root: Path) -> int:
    """Parts of `samples` that are on disk."""
    return sum(1 for path in (root / "samples").glob("*.parquet"))


if __name__ == "__main__":
    main()
