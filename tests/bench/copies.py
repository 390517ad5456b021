"""Planted copies of real images: what each finder finds, beside fastdup and Data-Juicer.

    uv run python tests/bench/copies.py [--quick] [--peers]

1. Drawings of openclipart and OpenMoji with copies of some of them, changed in six ways: see
   planted.py, which also says what counts as a natural duplicate.
2. Ours: the files go into tars and from there through ingest, download and dedup, as configured by
   default, as one process; then each finder alone decides on the same dataset. The embeddings of
   the semantic ones are those of a bootstrap scorer, trained on the set itself.
3. With --peers fastdup 2.54 (its own model and thresholds) and Data-Juicer 1.6.1
   (image_deduplicator, equal hashes), each in an environment of its own that uv makes, as one
   process over the same files. The seconds are those of the whole process.

A copy is found where its group holds its source; or another true duplicate, and only one of it and
its source stays (what is near several that stay is in the group of one). A removed image is false
where nothing in its group is truly its duplicate; precision is the share of those removed that are
not. Of a way of copying, precision is that of its copies that are in a group. Two tables, then one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from curate.dataset import Dataset
from curate.dedup import dedup
from curate.score import score
from schemas import configs as c
from tests.bench.dedupers import Groups, decided
from tests.bench.pictures import CACHE
from tests.bench.planted import WAYS, PlantedSet, planted

EPS = (0.002, 0.005, 0.01, 0.02, 0.05)
PRECISE = 0.99
PEERS = {
    "fastdup": ["fastdup==2.54", "setuptools<81"],
    # beside it what it would else install by itself while it runs
    "data-juicer": [
        *("py-data-juicer==1.6.1", "aiohttp", "imagededup==0.3.3", "setuptools<81"),
        *("torch", "torchvision"),
    ],
}
Figures = dict[str, float]


# ------------------------------------------------------------------------------------ figures


def figures(found: PlantedSet, groups: Groups) -> Figures:
    """Recall and precision, over all and by way of copying; the first of a group stays."""
    whole, hits, grouped, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    removed: Counter[str] = Counter()
    group_of = {number: group for group in groups for number in group}
    kept = {group[0] for group in groups}
    removed_ones = group_of.keys() - kept
    for number, file in enumerate(found.files):
        group = [other for other in group_of.get(number, ()) if other != number]
        bases = {found.files[other].base for other in group}
        true = any(found.same(file.base, base) for base in bases)
        if number in removed_ones:
            removed["planted" if file.base in bases else "natural" if true else "false"] += 1
        if file.way:
            either = number in removed_ones or file.base in removed_ones
            for way in ("all", file.way):
                whole[way] += 1  # a drawing of the base has its own number, and one copy at most
                hits[way] += file.base in bases or (true and either)
                grouped[way] += bool(group)
                right[way] += true
    every = sum(removed.values())
    figures = {"removed": every, **{k: removed[k] for k in ("planted", "natural", "false")}}
    figures |= {"recall": hits["all"] / whole["all"]}
    figures |= {"precision": 1 - removed["false"] / every if every else 1.0}
    for way in WAYS:
        figures[f"recall {way}"] = hits[way] / whole[way]
        figures[f"precision {way}"] = right[way] / grouped[way] if grouped[way] else 1.0
    return {name: round(value, 4) for name, value in figures.items()}


def show(rows: dict[str, Figures]) -> None:
    """Two tables."""
    print(f"\n{'':24}{'recall':>8}{'precis.':>9}{'removed':>9}{'planted':>9}", end="")
    print(f"{'natural':>9}{'false':>7}{'seconds':>9}")
    for name, of in rows.items():
        counts = (of[k] for k in ("removed", "planted", "natural"))
        print(f"{name:24}{of['recall']:8.4f}{of['precision']:9.4f}", end="")
        print("".join(f"{n:9.0f}" for n in counts), f"{of['false']:6.0f}{of['seconds']:9.1f}")
    print(f"\n{'recall / precision':24}" + "".join(f"{way:>15}" for way in WAYS))
    for name, of in rows.items():
        cells = (f"{of[f'recall {way}']:.3f} / {of[f'precision {way}']:.3f}" for way in WAYS)
        print(f"{name:24}" + "".join(f"{cell:>15}" for cell in cells))


# ------------------------------------------------------------------------------------ ours


def alone(data: Dataset, captions: list[str], finders: Sequence[Any]) -> tuple[Groups, float]:
    """What these finders decide by themselves, and in how long; nothing of it stays."""
    began = time.perf_counter()
    dedup(data, c.DedupConfig(finders=tuple(finders), extra_captions=False))
    seconds = time.perf_counter() - began
    groups = decided(data, captions)
    for table in [t for t in data.tables() if "duplicates_" in t or t == "decisions_dedup"]:
        data.drop(table)
    return groups, seconds


def kinds(data: Dataset, found: PlantedSet, captions: list[str]) -> dict[str, Figures]:
    """Each finder alone, then with the largest eps that is precise."""
    one = {
        "exact": c.ExactDuplicates(),
        "pixels": c.ExactDuplicates(by="pixels"),
        "perceptual": c.PerceptualDuplicates(),
        "perceptual by dhash": c.PerceptualDuplicates(by="dhash"),
    }
    one |= {f"semantic {eps}": c.SemanticDuplicates(eps=eps) for eps in EPS}
    rows = {}
    for name, finder in one.items():
        rows[name] = timed(found, lambda finder=finder: alone(data, captions, [finder]))
    fine = [eps for eps in EPS if rows[f"semantic {eps}"]["precision"] >= PRECISE]
    eps = max(fine, default=min(EPS))
    both = [*c.DedupConfig().finders, c.SemanticDuplicates(eps=eps)]
    rows[f"default + semantic {eps}"] = timed(found, lambda: alone(data, captions, both))
    return rows


def timed(found: PlantedSet, run: Callable[[], tuple[Groups, float]]) -> Figures:
    groups, seconds = run()
    return figures(found, groups) | {"seconds": round(seconds, 1)}


# ------------------------------------------------------------------------------------ processes


def process(which: str, python: str, spec: dict[str, Any]) -> tuple[Groups, float]:
    """One way as a process of its own, from files to groups, and its seconds."""
    out = Path(spec["out"])
    written = out / f"{which}.json"
    written.write_text(json.dumps(spec))
    quiet = {"DO_NOT_TRACK": "1", "SENTRY_OPT_OUT": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, str(Path(__file__).with_name("dedupers.py")), which, str(written)]
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False, cwd=out
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{which} failed:\n{done.stdout[-1500:]}\n{done.stderr[-9000:]}")
    groups: Groups = json.loads(done.stdout.splitlines()[-1])
    return groups, seconds


def python_of(peer: str, cache: Path) -> str:
    """The Python of an environment that has the peer, installed once."""
    folder = cache / f"venv-{peer}-images"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {peer} in {folder}", flush=True)
        subprocess.run(["uv", "venv", "--quiet", "--clear", str(folder)], check=True)
        command = ["uv", "pip", "install", "--quiet", "--python", str(python), *PEERS[peer]]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    return str(python)


def linked(found: PlantedSet, folder: Path) -> Path:
    """The files of the set in one folder, called by their numbers."""
    folder.mkdir(parents=True)
    for number, file in enumerate(found.files):
        (folder / f"{number:06d}{file.path.suffix}").hardlink_to(file.path)
    return folder


def main() -> None:
    """Make the set, run all, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 500 images, 300 copies")
    parser.add_argument("--peers", action="store_true")
    told = parser.parse_args()
    found = planted(CACHE, *((1500, 300) if told.quick else (12_000, 2000)))
    copies = sum(bool(file.way) for file in found.files)
    print(f"{len(found.files) - copies} images, {copies} copies", flush=True)
    out = CACHE / "copies" / "run"
    shutil.rmtree(out, ignore_errors=True)
    captions = [file.caption for file in found.files]
    spec: dict[str, Any] = {
        "folder": str(linked(found, out / "files")),
        "captions": captions,
        "out": str(out),
        "processes": os.cpu_count(),
    }
    rows = {"ours, default": timed(found, lambda: process("ours", sys.executable, spec))}
    for peer in PEERS if told.peers else ():
        python = python_of(peer, CACHE)
        rows[peer] = timed(found, lambda p=peer, of=python: process(p, of, spec))
    show(rows)
    data = Dataset(str(out / "dataset"))
    dedup(data, None)
    for table in (f"duplicates_{finder.name}" for finder in c.DedupConfig().finders):
        data.drop(table)
    began = time.perf_counter()
    score(data, [c.BootstrapScorer()])
    embedding = time.perf_counter() - began
    rows |= kinds(data, found, captions)
    show(rows)
    print(f"\nembeddings {embedding:.0f} s")
    result = {"images": len(found.files), "copies": copies, "embeddings_s": round(embedding, 1)}
    print(json.dumps(result | rows | {"load": os.getloadavg()}))


if __name__ == "__main__":
    main()
