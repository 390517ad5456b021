"""Whether a long download stays in its memory, and loses no row.

    uv run python tests/bench/download_memory.py            100 000 URLs, some minutes
    uv run python tests/bench/download_memory.py --quick    5 000

A list on loopback: photos of 320 x 240 (about 10 to 20 kB) on 64 hosts, 10 % of its rows failing in
eight ways, 20 shards, two workers. The PSS of every process is sampled over the rows asked for.
After 25 000 rows (2 500 of 5 000) each must be flat: a line is fitted, and what it gains from there
to the end may be at most 30 MB or a tenth, whichever is more. Ray's daemons are counted together,
and so are any other processes. A process that was there too shortly is not judged; the driver and
the two workers that worked most must be. Every row must be there with the status of its kind:
urls = success + each failure. Writes memory.svg, and memory.png where there is a chromium, to
--out; prints a table and last one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.columns import our_rows
from tests.bench.downloaders import OURS, Spec, environment
from tests.bench.lines import Line, lines_svg
from tests.bench.pictures import CACHE, small_photos
from tests.bench.processes import DRIVER, WORKER, Process, Usage, measure
from tests.bench.web_server import Host, Page, WebServer, web_server

HOSTS = tuple(Host(f"127.0.6.{i}") for i in range(1, 65))
SILENT = tuple(Host(f"127.0.7.{i}", silent=True) for i in range(1, 33))
DOWN, RESIZE = "failed_to_download", "failed_to_resize"
KINDS = {  # of 200 rows; what becomes of them
    "404": (9, DOWN),
    "403": (3, DOWN),
    "503": (2, DOWN),
    "refused": (1, DOWN),
    "reset": (1, DOWN),
    "cut": (1, DOWN),
    "html": (2, RESIZE),
    "silent": (1, DOWN),
}
TOLD = {"ours": {"deadline_s": 20}, "timeout_s": 8}
PARTS = 40
# rows, of few the first half: until then memory may grow. Two workers have 10 000 in hand each
WARM = 25_000
GROWTH_MB, GROWTH_SHARE = 30.0, 0.1
FEWEST = 10  # samples that a line is fitted to
LIMIT_S = 3600.0


def main() -> None:
    """Download, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--open", type=int, default=64, help="open requests of each worker")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, help="folder of the plot; default: a new one")
    told = parser.parse_args()
    rows = told.rows or (5_000 if told.quick else 100_000)
    out = told.out or Path(tempfile.mkdtemp(prefix="curate-memory-"))
    out.mkdir(parents=True, exist_ok=True)
    with web_server(_pages(told.cache, rows), (*HOSTS, *SILENT)) as web:
        usage, found = _download(web, rows, told.open, out)
    lost = _lost(found, rows)
    tracks = _tracks(usage)
    judged = {name: _growth(track, rows) for name, track in tracks.items()}
    growth = {name: found for name, found in judged.items() if found}
    unjudged = [name for name in _must(usage) if name not in growth]
    plot = _draw(tracks, rows, out)
    print(f"{rows} rows in {usage.seconds:.0f} s, {rows / usage.seconds:.0f} rows/s; {plot}")
    print(f"{'process':<28}{'when warm':>10}{'gained':>10}{'allowed':>10}  MB PSS")
    for name, (level, gained, allowed) in growth.items():
        print(f"{name:<28}{level:>10.0f}{gained:>10.1f}{allowed:>10.0f}")
    for outcome, n in Counter(found.values()).most_common():
        print(f"{n:>10}  {outcome[0]} {outcome[1] or ''}")
    print(f"{len(lost)} rows lost or of another status {lost[:5] or ''}")
    if unjudged:
        print(f"not there long enough to be judged: {', '.join(unjudged)}")
    flat = not unjudged and all(gained <= allowed for _, gained, allowed in growth.values())
    print(f"memory is {'flat' if flat else 'NOT FLAT'}; rows {'NOT all' if lost else 'all'} there")
    print(json.dumps({"bench": "download_memory", "rows": rows, "seconds": usage.seconds,
                      "flat": flat, "lost": len(lost), "growth_mb": growth,
                      "peak_mb": usage.peak_mb(), "peak_own_mb": usage.peak_mb(daemons=False),
                      "plot": str(plot)}))  # fmt: skip
    sys.exit(bool(lost) or not flat)


def _kind(number: int) -> str:
    """The kind of a row: each 200 rows have all kinds."""
    at = number * 37 % 200  # 37 has no divisor with 200, so that failures come mixed
    for kind, (some, _) in KINDS.items():
        if at < some:
            return kind
        at -= some
    return "image"


def _pages(cache: Path, rows: int) -> dict[str, Page]:
    """A page per row, robots.txt aside; 500 photos among them all."""
    bodies = [path.read_bytes() for path in small_photos(cache, 500, 320, 240, 80)]
    made = {
        "403": Page(status=403),
        "503": Page(status=503),
        "reset": Page(reset=True),
        "html": Page(b"<!doctype html><p>moved</p>", content_type="text/html"),
        "cut": Page(bodies[0], cut=True),
    }
    photos = [Page(body) for body in bodies]
    kinds = ((i, _kind(i)) for i in range(rows))
    return {
        f"/{kind}/{i}.jpg": made.get(kind, photos[i % len(photos)])
        for i, kind in kinds
        if kind != "404"
    }


def _url(web: WebServer, number: int) -> str:
    kind, path = _kind(number), f"/{_kind(number)}/{number}.jpg"
    if kind == "refused":
        return web.url(f"127.0.8.{1 + number // 200 % 200}", path)
    hosts = SILENT if kind == "silent" else HOSTS
    return web.url(hosts[number // 200 % len(hosts) if kind == "silent" else number % 64], path)


def _download(
    web: WebServer, rows: int, open_requests: int, out: Path
) -> tuple[Usage, dict[int, tuple[str, str | None]]]:
    """The run, and the status and reason of each row by its number."""
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as scratch:
        at = Path(scratch)
        urls = [_url(web, i) for i in range(rows)]
        captions = [f"picture {i}" for i in range(rows)]
        pq.write_table(pa.table({"url": urls, "caption": captions}), at / "list.parquet")
        spec = Spec(
            urls=str(at / "list.parquet"),
            out=str(at / "data"),
            part_rows=-(-rows // PARTS),
            open_requests=open_requests,
            **TOLD,
        )
        usage = measure(
            spec.command(OURS), environment(), out / "log.txt", limit_s=LIMIT_S, count=web.hits
        )
        if usage.code:
            raise RuntimeError(f"the download ended with {usage.code}: {usage.said}")
        found = our_rows(at / "data")
    numbers = {url: i for i, url in enumerate(urls)}
    return usage, {numbers[u]: (r["status"], r["error_message"]) for u, r in found.items()}


def _lost(found: dict[int, tuple[str, str | None]], rows: int) -> list[str]:
    """Rows that are not there, or not with the status that their kind must have."""
    expected = {kind: status for kind, (_, status) in KINDS.items()} | {"image": "success"}
    lost = []
    for number in range(rows):
        status, error = found.get(number, ("no row", None))
        if status != expected[_kind(number)]:
            lost.append(f"row {number} ({_kind(number)}): {status} {error}")
    return lost


def _name(process: Process) -> str:
    """Workers are told apart by title and number, all others by role."""
    if process.role != WORKER:
        return process.role
    return f"{process.name.split('(')[0][:18]} {process.pid}"


def _must(usage: Usage) -> list[str]:
    """The processes whose memory decides: the driver, and the two workers that worked most."""
    last = {p.pid: p for s in usage.samples for p in s.processes if p.role == WORKER}
    busiest = sorted(last.values(), key=lambda p: -p.cpu_s)[:2]
    return [DRIVER, *map(_name, busiest)]


def _tracks(usage: Usage) -> dict[str, list[tuple[int, float]]]:
    """Rows asked for and MB, of the driver, each worker, Ray's daemons and all others together.

    Only while rows are asked for: before and after that processes come and go, and a page that
    was shared becomes its last owner's.
    """
    titles = {p.pid: _name(p) for s in usage.samples for p in s.processes}
    end = usage.samples[-1].count
    tracks: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for sample in usage.samples:
        together: dict[str, float] = defaultdict(float)
        for p in sample.processes:
            together[titles[p.pid]] += p.pss_mb
        for name, mb in together.items():
            if 0 < sample.count < end:
                tracks[name].append((sample.count, mb))
    return dict(sorted(tracks.items(), key=lambda item: -item[1][-1][1]))


def _warm(rows: int) -> int:
    """The rows after which memory must not grow any more."""
    return min(WARM, rows // 2)


def _growth(track: Sequence[tuple[int, float]], rows: int) -> tuple[float, float, float] | None:
    """MB when warm, what the fitted line gains from there, and what it may.

    None where the process was there for less than half of the way.
    """
    warm = _warm(rows)
    points = np.array([(n, mb) for n, mb in track if n >= warm], float)
    if len(points) < FEWEST or points[-1, 0] - points[0, 0] < (rows - warm) / 2:
        return None
    slope, base = np.polyfit(points[:, 0], points[:, 1], 1)
    begin, end = points[0, 0], points[-1, 0]
    level = float(base + slope * begin)
    return level, float(slope * (end - begin)), max(GROWTH_MB, GROWTH_SHARE * level)


def _draw(tracks: dict[str, list[tuple[int, float]]], rows: int, out: Path) -> Path:
    """memory.svg, and memory.png where a browser can draw it; returns the better one."""
    lines = [Line(name, [(n / 1000, mb) for n, mb in track]) for name, track in tracks.items()]
    svg = lines_svg(lines, "thousand rows asked for", "MB PSS", mark=_warm(rows) / 1000)
    (out / "memory.svg").write_text(svg)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        return out / "memory.svg"
    (out / "memory.html").write_text(f'<body style="margin:16px;width:968px">{svg}</body>')
    png = out / "memory.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    shot = [f"--screenshot={png}", "--window-size=1000,560", (out / "memory.html").as_uri()]
    subprocess.run([browser, *flags, *shot], check=True, capture_output=True, timeout=120)
    return png


if __name__ == "__main__":
    main()
