"""Whether damaged images and HTTP answers can crash a worker, hang it, or make it grow.

    uv run python tests/bench/fuzz.py                    100 000 mutated images
    uv run python tests/bench/fuzz.py --what answers     100 000 mutated answers, over loopback
    uv run python tests/bench/fuzz.py --quick            5 000

Small images of every kind are damaged at random and resized under four configs in a child process,
that says which case it is at: if it dies or stands still, that case is counted by its number and
the next child goes on behind it. `--case N` repeats one case here. Prints a small table, then one
line of JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import psutil

from curate.pictures.exif import MAX_JSON
from curate.resize import Picture, Pictures
from schemas.configs import DownloadConfig
from tests.bench.addresses import robots, urls
from tests.bench.answers import answers
from tests.bench.mutations import mutated
from tests.curate.pictures.blocks import (
    camera,
    in_jpeg,
    in_tiff,
    in_webp,
    overlapping,
    shared_text,
)
from tests.kinds import every_kind, interlaced_png, saved, smooth, turned

PER_CHILD = 25_000
EVERY = 500  # cases between two looks at the memory
HANG_S = 60.0
CONFIGS: tuple[dict[str, Any], ...] = (
    {"image_size": 64},
    {"image_size": 48, "resize_mode": "center_crop", "encode_format": "webp"},
    {"resize_mode": "no", "encode_format": "png"},
    {"reencode": "never"},
)


def originals() -> list[bytes]:
    """What is damaged: every kind, some that are large enough to be decoded at half size, and some
    with the EXIF of a camera or of an attacker.
    """
    from PIL import Image

    large = Image.fromarray(smooth(7, 400, 300))
    return [
        *every_kind().values(),
        *(saved(large, kind) for kind in ("JPEG", "PNG", "WEBP")),
        saved(large.convert("CMYK"), "JPEG", progressive=True),
        interlaced_png(smooth(8, 300, 200)),
        turned("JPEG", 7, 500, 300),
        *(around(camera()) for around in (in_jpeg, in_webp, in_tiff)),
        *map(in_jpeg, (shared_text(), overlapping(100))),
    ]


def images(seed: int) -> Callable[[int], str]:
    """Case number -> what came of it."""
    bodies = originals()
    pictures = [Pictures(DownloadConfig(**options)) for options in CONFIGS]

    def run(case: int) -> str:
        rng = np.random.default_rng((seed, case))
        return _judged(pictures[case % len(pictures)].resized(mutated(rng, bodies)))

    return run


def _judged(picture: Picture) -> str:
    """A success must be whole, what the stages behind read was computed, and its EXIF bounded."""
    if picture.error is not None:
        return re.sub(r"image type \w+", "image type X", picture.error)
    if len(picture.exif or "") > MAX_JSON:
        return "incomplete"
    return "stored" if picture.encoded and picture.width and picture.thumbnail else "incomplete"


TARGETS = {"images": images, "answers": answers, "urls": urls, "robots": robots}


def child(what: str, seed: int, begin: int, end: int, mark: str) -> None:
    """Run the cases; tells the parent by `mark` where it is, by stdout what came of it."""
    run = TARGETS[what](seed)
    process = psutil.Process()
    counts: Counter[str] = Counter()
    slowest, memory, resident = (0.0, begin), list[int](), 0
    with Path(mark).open("r+b", buffering=0) as place:
        for case in range(begin, end):
            os.pwrite(place.fileno(), struct.pack("<q", case), 0)
            began = time.perf_counter()
            try:
                counts[run(case)] += 1
            except Exception as error:  # what `resized` must never do
                counts[f"raised {type(error).__name__}"] += 1
                print(f"case {case} raised {error!r}"[:300], file=sys.stderr)
            slowest = max(slowest, (time.perf_counter() - began, case))
            if (case - begin + 1) % EVERY == 0 or case == end - 1:
                resident = max(resident, process.memory_info().rss >> 20)
                _give_back()
                memory.append(process.memory_info().rss >> 20)
                line = {"to": case + 1, "counts": counts, "slowest": slowest, "memory": memory}
                line["resident"] = resident
                line["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                print(json.dumps(line), flush=True)
                counts.clear()


def _give_back() -> None:
    """Let C's allocator return what it keeps in free pieces: what is left then is in use."""
    with suppress(AttributeError, OSError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


@dataclass
class Found:
    """What all children said."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    memory: list[list[int]] = field(default_factory=list)  # MB in use, each EVERY cases, per child
    resident: list[int] = field(default_factory=list)  # MB at most, with what C keeps free
    peaks: list[int] = field(default_factory=list)  # MB, while a case was at work
    crashes: list[dict[str, int]] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    noise: Counter[str] = field(default_factory=Counter)  # lines on stderr


def fuzz(what: str, seed: int, total: int) -> Found:
    """All cases, in as many children as that takes."""
    found, begin = Found(), 0
    while begin < total:
        end = min(total, begin + PER_CHILD)
        begin = _one_child(found, what, seed, begin, end)
        print(f"{begin:>8} of {total}", file=sys.stderr, flush=True)
    return found


def _one_child(found: Found, what: str, seed: int, begin: int, end: int) -> int:
    """Returns the first case that is left to do."""
    with tempfile.TemporaryDirectory(prefix="curate-fuzz-") as scratch:
        mark, out, err = (Path(scratch) / name for name in ("mark", "out", "err"))
        mark.write_bytes(struct.pack("<q", begin))
        command = [sys.executable, __file__, "--what", what, "--seed", str(seed)]
        command += ["--child", str(begin), str(end), str(mark)]
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
            hung = _watched(process, mark)
        case = struct.unpack("<q", mark.read_bytes())[0]
        done = begin
        for line in map(json.loads, out.read_text().splitlines()):
            found.counts.update(line["counts"])
            found.slowest = max(found.slowest, tuple(line["slowest"]))
            done = line["to"]
        if out.stat().st_size:
            found.memory.append(line["memory"])
            found.resident.append(line["resident"])
            found.peaks.append(line["peak"])
        found.noise.update(_kinds_of(err.read_text(errors="replace").splitlines()))
    if done == end:
        return end
    if hung:
        found.hangs.append(case)
    else:
        found.crashes.append({"case": case, "returned": process.returncode})
    found.counts["not told, before a crash"] += case - done
    return case + 1


def _watched(process: subprocess.Popen[bytes], mark: Path) -> bool:
    """Wait for its end; one that stands at a case for HANG_S is killed: True."""
    at, since = mark.read_bytes(), time.monotonic()
    while True:
        try:
            process.wait(timeout=1)
            return False
        except subprocess.TimeoutExpired:
            now = mark.read_bytes()
        if now != at:
            at, since = now, time.monotonic()
        elif time.monotonic() - since > HANG_S:
            process.kill()
            process.wait()
            return True


def _kinds_of(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield re.sub(r"0x[0-9a-f]+|\d+", "N", line)[:70]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=sorted(TARGETS), default="images")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--child", nargs=3)
    told = parser.parse_args()
    if told.child:
        child(told.what, told.seed, int(told.child[0]), int(told.child[1]), told.child[2])
        return
    if told.case is not None:
        print(TARGETS[told.what](told.seed)(told.case))
        return
    total, began = 5_000 if told.quick else 100_000, time.perf_counter()
    found = fuzz(told.what, told.seed, total)
    after = [memory[len(memory) // 5 :] for memory in found.memory]  # the first fifth warms up
    result = {
        "bench": "fuzz",
        "what": told.what,
        "cases": total,
        "seconds": round(time.perf_counter() - began),
        "crashes": found.crashes,
        "hangs": found.hangs,
        "outcomes": dict(found.counts.most_common()),
        "slowest_s": round(found.slowest[0], 2),
        "slowest_case": found.slowest[1],
        "child_mb_warm": [memory[0] for memory in after],
        "child_mb_end": [memory[-1] for memory in after],
        "child_mb_highest": [max(memory) for memory in after],
        "child_mb_resident": found.resident,
        "child_mb_peak": found.peaks,
        "stderr_lines": dict(found.noise.most_common(8)),
    }
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
