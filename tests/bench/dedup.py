"""How dedup grows: seconds and peak memory of each kind at 10 k, 100 k and 1 M rows, the exponent
of the growth, recall of the search for near hashes, and imagededup beside it.

    uv run python tests/bench/dedup.py [--quick] [--kinds exact,url,...] [--rows 10000,100000]

Each cell is the whole stage (search, decisions, captions of copies) as a process of its own, on a
dataset that was written before: one row in ten is a copy of an earlier one, near or equal. Hashes
are compared at radius 6 and by themselves, embeddings (512 numbers) at eps 0.05. imagededup is
given the same hashes as its own encodings, so that only the search is timed, on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

CACHE = Path.home() / ".cache" / "curate-bench"
SIZES = (10_000, 100_000, 1_000_000)
KINDS = ("exact", "url", "text", "perceptual", "semantic")
PART_ROWS, DIMS, RADIUS, EPS = 10_000, 512, 6, 0.05
COPIES = 0.1  # share of rows that copy an earlier one
BARS = {"exact": 1.2, "url": 1.2, "text": 1.2, "perceptual": 1.6, "semantic": 1.6}
PEER_ROWS, PEER = (10_000, 50_000), "imagededup==0.3.3"
PATIENCE_S = 60  # with a search of the peer
SEARCHES = ("bktree", "brute_force", "brute_force_cython")  # of the peer
Array = np.ndarray[Any, np.dtype[Any]]


# ------------------------------------------------------------------------------------ the pool


def hashes(rows: int, seed: int = 0) -> Array:
    """Random 64-bit hashes; of every copy up to RADIUS bits of an earlier row's are flipped."""
    draw = np.random.default_rng(seed)
    found = draw.integers(1, 1 << 63, rows, dtype=np.uint64)
    copies = np.flatnonzero(draw.random(rows) < COPIES)
    copies = copies[copies > 0]
    found[copies] = found[draw.integers(0, copies)]
    for _ in range(RADIUS):
        flipped = draw.random(len(copies)) < 0.5
        bits = draw.integers(0, 64, len(copies), dtype=np.uint64)
        found[copies[flipped]] ^= np.uint64(1) << bits[flipped]
    return found


def captions(rows: int, seed: int = 1) -> list[str]:
    """Web-length captions of words with Zipf's frequencies; of every copy one word is another."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 16, rows)
    words = np.minimum(draw.zipf(1.3, int(lengths.sum())), 60_000)
    ends = np.cumsum(lengths)
    copies = draw.random(rows) < COPIES
    found: list[str] = []
    for row in range(rows):
        some = [f"w{word}" for word in words[ends[row] - lengths[row] : ends[row]]]
        if copies[row] and row:
            some = found[int(draw.integers(row))].split()
            some[int(draw.integers(len(some)))] = f"w{int(draw.integers(60_000))}"
        found.append(" ".join(some))
    return found


def write_pool(folder: Path, rows: int) -> None:
    """A dataset of `rows` downloaded pairs, of the contract's tables, without images."""
    import pyarrow as pa

    from curate.dataset import Dataset
    from schemas.tables import SAMPLES, URLS, uid_of
    from tests.tiny import Made

    data, draw = Dataset(str(folder)), np.random.default_rng(2)
    found, texts = hashes(rows), captions(rows)
    sources = np.arange(rows)
    copied = draw.random(rows) < COPIES
    sources[copied] = draw.integers(0, sources[copied] + 1)
    centres = draw.standard_normal((max(20, rows // 500), DIMS), dtype=np.float32)
    claims = {
        name: data.claim(name, Made(name=name), of=of, append=not of)
        for name, of in (("urls", ()), ("samples", ("urls",)), ("scores_clip", ("urls", "samples")))
    }
    # urls are published first: the others are of its parts
    blocks = [range(b, min(b + PART_ROWS, rows)) for b in range(0, rows, PART_ROWS)]
    uids = [[uid_of(f"https://x.example/{i}", texts[i]) for i in block] for block in blocks]
    for part, block in enumerate(blocks):
        urls = [f"https://x.example/{sources[i]}" for i in block]
        table = pa.table({"uid": uids[part], "url": urls, "caption": [texts[i] for i in block]})
        rest = [f for f in URLS if f.name not in table.column_names]
        for field in rest:
            table = table.append_column(field, pa.nulls(len(block), field.type))
        data.write(claims["urls"], part, table)
    data.publish(claims["urls"])
    for part, block in enumerate(blocks):
        n = len(block)
        columns: dict[str, Any] = {f.name: pa.nulls(n, f.type) for f in SAMPLES}
        columns |= {"uid": uids[part], "key": uids[part], "status": ["success"] * n}
        columns |= {"sha256": [f"{sources[i]:064x}" for i in block]}
        columns |= {"phash": found[block.start : block.stop], "thumbnail": [bytes(192)] * n}
        columns |= {"original_width": [200] * n, "original_height": [100 + i % 97 for i in block]}
        data.write(claims["samples"], part, pa.table(columns, schema=SAMPLES))
    data.publish(claims["samples"])
    for part, block in enumerate(blocks):
        vectors = _embeddings(centres, sources[block.start : block.stop], block.start)
        emb = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), DIMS)
        scores = {"uid": uids[part], "caption_id": uids[part]}
        scores |= {"clip_score": np.full(len(block), 0.3, np.float32), "image_emb": emb}
        table = pa.table(scores | {"error": pa.nulls(len(block), pa.string())})
        data.write(claims["scores_clip"], part, table)
    data.publish(claims["scores_clip"])


def _embeddings(centres: Array, sources: Array, first: int) -> Array:
    """Unit float16 rows: a centre and noise drawn by the source, so that copies have the same, and
    a little noise of their own.
    """
    found = np.empty((len(sources), DIMS), np.float32)
    for at, source in enumerate(sources):
        of = np.random.default_rng(int(source))
        noise = of.standard_normal(DIMS, dtype=np.float32)
        found[at] = centres[int(of.integers(len(centres)))] + noise
        if source != first + at:
            own = np.random.default_rng([7, first + at])
            found[at] += 0.15 * own.standard_normal(DIMS, dtype=np.float32)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def pool(cache: Path, rows: int) -> Path:
    """The folder of the pool of so many rows, written once."""
    folder = cache / "dedup" / f"pool-{rows}"
    if not (folder / "ready").exists():
        print(f"writing a pool of {rows:,} rows", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        write_pool(folder, rows)
        (folder / "ready").touch()
    return folder


# ------------------------------------------------------------------------------------ one cell


def finder_of(kind: str) -> Any:
    from schemas import configs as c

    return {
        "exact": c.ExactDuplicates(),
        "url": c.ExactDuplicates(by="url"),
        "text": c.TextDuplicates(),
        "perceptual": c.PerceptualDuplicates(radius=RADIUS, max_rms=None, min_distinct_bits=0),
        "semantic": c.SemanticDuplicates(embeddings="clip", eps=EPS),
    }[kind]


def cell(kind: str, folder: str) -> None:
    """Run the stage; the last line says how it was."""
    from curate.dataset import Dataset
    from curate.dedup import dedup
    from schemas.configs import DedupConfig, Workers

    data = Dataset(folder)
    began = time.perf_counter()
    dedup(data, DedupConfig(finders=(finder_of(kind),)), Workers(count=0))
    seconds = time.perf_counter() - began
    edges = sum(data.rows(t) for t in data.tables() if t.startswith("duplicates_"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "edges": edges, "peak_mb": peak}))


def measured(kind: str, source: Path, scratch: Path) -> dict[str, float]:
    """A cell as a process of its own, on tables that only hold what is read."""
    target = scratch / f"{kind}-{source.name}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
    command = [sys.executable, __file__, "--cell", kind, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(target)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log rows, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


# ------------------------------------------------------------------------------------ recall, peers


def recall(rows: int = 100_000) -> dict[str, int]:
    """Pairs within RADIUS that our search finds among `rows` hashes, and those that there are by
    comparing all with all.
    """
    from curate.duplicates.hamming import pairs_in_view, plan

    found = np.unique(hashes(rows, seed=5))
    blocks, views, _ = plan(1_000_000, RADIUS)  # as a pool of a million is searched
    none = found[:0]
    some = (pairs_in_view(found, none, RADIUS, blocks, view) for view in views)
    ours = sum(len(left) for pairs in some for left, _ in pairs)
    there = 0
    for row in range(len(found) - 1):
        there += int((np.bitwise_count(found[row + 1 :] ^ found[row]) <= RADIUS).sum())
    return {"found": ours, "there": there}


def peers(cache: Path, rows: int) -> dict[str, dict[str, float]]:
    """The search for near hashes alone: ours, imagededup's BK-tree, its brute force."""
    python = python_of(cache)
    file, script = (
        cache / "dedup" / f"hashes-{rows}.npy",
        Path(__file__).with_name("near_hashes.py"),
    )
    np.save(file, np.unique(hashes(rows, seed=9)))
    ways = {"ours": sys.executable} | dict.fromkeys(SEARCHES, python)
    found = {}
    for name, interpreter in ways.items():
        command = [interpreter, str(script), name, str(file), str(RADIUS)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
            )
        except subprocess.TimeoutExpired:  # what it took is then this at least
            print(f"  {name:>20} over {PATIENCE_S} s", flush=True)
            found[name] = {"seconds": float(PATIENCE_S), "pairs": -1}
            continue
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"  {name:>20} {found[name]['seconds']:9.2f} s", flush=True)
    return found


def python_of(cache: Path) -> str:
    """The Python of an environment that has imagededup, installed once."""
    folder = cache / "venv-imagededup"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing imagededup in {folder}", flush=True)
        subprocess.run(["uv", "venv", "--quiet", "--clear", str(folder)], check=True)
        command = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            PEER,
            "setuptools<81",
        ]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    return str(python)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 k and 30 k rows")
    parser.add_argument("--cell", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rows")
    parser.add_argument("--no-peers", action="store_true")
    told = parser.parse_args()
    if told.cell:
        cell(*told.cell)
        return
    sizes = list((10_000, 30_000) if told.quick else SIZES)
    if told.rows:
        sizes = [int(n) for n in told.rows.split(",")]
    result: dict[str, Any] = {}
    print(f"{'kind':>10} {'rows':>10} {'seconds':>9} {'edges':>10} {'peak MB':>8}")
    for kind in told.kinds.split(","):
        cells = [measured(kind, pool(CACHE, rows), CACHE / "dedup") for rows in sizes]
        for rows, one in zip(sizes, cells, strict=True):
            print(
                f"{kind:>10} {rows:>10,} {one['seconds']:9.2f} {one['edges']:>10,.0f} "
                f"{one['peak_mb']:8.0f}",
                flush=True,
            )
            result[f"{kind}_{rows}_s"] = round(one["seconds"], 2)
            result[f"{kind}_{rows}_mb"] = round(one["peak_mb"])
        if len(sizes) > 1:
            grown = exponent(sizes, [one["seconds"] for one in cells])
            result[f"{kind}_exponent"] = round(grown, 2)
            print(f"{kind:>10} exponent {grown:.2f} (bar {BARS[kind]})", flush=True)
    result["recall"] = recall(20_000 if told.quick else 100_000)
    print(f"near hashes found {result['recall']['found']:,} of {result['recall']['there']:,}")
    for rows in [] if told.no_peers else PEER_ROWS[: 1 if told.quick else 2]:
        print(f"near hashes among {rows:,}", flush=True)
        found = peers(CACHE, rows)
        for name, one in found.items():
            result[f"{name}_{rows}_s"] = round(one["seconds"], 3)
            if name != "ours":
                result[f"times_{name}_{rows}"] = round(one["seconds"] / found["ours"]["seconds"], 1)
                if one["pairs"] >= 0:
                    result[f"same_pairs_{name}_{rows}"] = one["pairs"] == found["ours"]["pairs"]
    assert_finite(result)
    print(json.dumps(result))


def assert_finite(result: dict[str, Any]) -> None:
    """Raise ValueError for a figure that is none."""
    bad = [k for k, v in result.items() if isinstance(v, float) and not math.isfinite(v)]
    if bad:
        raise ValueError(f"no figures: {', '.join(bad)}")


if __name__ == "__main__":
    main()
