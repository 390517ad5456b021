"""How long the codebook and the balance selectors take on a long list, and how much memory.

    uv run python tests/bench/compress.py            1 million pairs
    uv run python tests/bench/compress.py --quick    100 000 pairs

Makes datasets of synthetic pairs as a run would leave them: 196 codes an image, of 3000, planted
in 1000 topics with 30 % background; captions of ten words with Zipf's frequencies. A quarter is
selected (tf-idf's clusters are as costly as those of the square root), each run in a process of its
own that tests/bench/processes.py watches: in parts of 10 000 and of 25 000 pairs, without and with
two workers. All subsets of a selector must be equal, down to clusters and ranks. Bars, for two
cores: 10 minutes and 4 GB. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa

from curate import compress as stage
from curate.dataset import Dataset
from curate.selectors.clusters import how_many
from schemas.configs import BalanceSelector, ChooseCaption, CodebookSelector
from schemas.tables import CODES, SAMPLES, URLS
from tests.bench.processes import measure
from tests.tiny import Made

CHUNK = 50_000  # pairs made at once; parts are slices of it
PATCHES, VOCABULARY, TOPICS, OF_A_TOPIC, BACKGROUND = 196, 3000, 1000, 40, 0.3
WORDS, CAPTION = 50_000, 10
BARS = {"seconds": 600, "peak_mb": 4096}
RUNS = (  # selector, pairs of a part, workers
    ("codebook", 10_000, 0),
    ("codebook", 10_000, 2),
    ("codebook", 25_000, 2),
    ("balance", 10_000, 0),
    ("balance", 25_000, 0),
)


def chunk(table: str, number: int) -> pa.Table:
    """CHUNK rows of a table, the same for every size of parts."""
    rng = np.random.default_rng([1, number])
    tail = rng.bytes(12 * CHUNK).hex()
    uids = [f"{number * CHUNK + i:08x}{tail[24 * i : 24 * i + 24]}" for i in range(CHUNK)]
    if table == "codes_codebook":
        return filled(CODES, uid=uids, codes=codes_of(rng))
    if table == "samples":
        return filled(SAMPLES, uid=uids, key=uids, status=["success"] * CHUNK)
    words = rng.zipf(1.3, (CHUNK, CAPTION)) % WORDS
    captions = [" ".join(f"word{w}" for w in row) for row in words.tolist()]
    return filled(URLS, uid=uids, url=[f"http://a/{u}" for u in uids], caption=captions)


def codes_of(rng: np.random.Generator) -> pa.ListArray:
    """The codes of CHUNK images, each of a topic."""
    own = np.random.default_rng(0).integers(0, VOCABULARY, (TOPICS, OF_A_TOPIC))
    topic = rng.integers(0, TOPICS, CHUNK)
    codes = own[topic[:, None], rng.integers(0, OF_A_TOPIC, (CHUNK, PATCHES))]
    background = rng.random((CHUNK, PATCHES)) < BACKGROUND
    codes[background] = rng.integers(0, VOCABULARY, int(background.sum()))
    offsets = pa.array(np.arange(0, CHUNK * PATCHES + 1, PATCHES, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(codes.astype(np.int16).ravel()))


def filled(schema: pa.Schema, **known: Any) -> pa.Table:
    """A table of CHUNK rows, unknown columns null."""
    columns = [known.get(f.name, pa.nulls(CHUNK, f.type)) for f in schema]
    return pa.table(columns, schema=schema)


def make(root: str, pairs: int, size: int) -> None:
    """The dataset with parts of `size` pairs."""
    data, chunks = Dataset(root), pairs // CHUNK
    for table, of in (("urls", ()), ("samples", ("urls",)), ("codes_codebook", ("samples",))):
        claim = data.claim(table, Made(name=table), of=of)
        for number in range(chunks):
            rows = chunk(table, number)
            for at in range(0, CHUNK, size):
                data.write(claim, (number * CHUNK + at) // size, rows.slice(at, size))
        data.publish(claim)


def run(root: str, selector: str, workers: int) -> None:
    """Select a quarter; prints what was taken, as one line of JSON."""
    stage.workers_for = lambda _, asked: asked  # a short list is spread too, to compare
    name = f"{selector}_{workers}"
    config: Any = (
        CodebookSelector(name=name, fraction=0.25)
        if selector == "codebook"
        else BalanceSelector(name=name, fraction=0.25)
    )
    data = Dataset(root)
    stage.compress(data, [config], ChooseCaption(), workers)
    print(json.dumps({"rows": data.rows(f"subset_{name}"), "subset": subset(data, name)}))


def subset(data: Dataset, name: str) -> str:
    """A hash of uid, cluster and rank of all pairs, by uid."""
    table = f"subset_{name}"
    rows = [data.read(table, p, ["uid", "cluster", "rank"]) for p in sorted(data.parts(table))]
    found = pa.concat_tables(rows).sort_by("uid").to_pylist()
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """Each run's seconds, memory and subset."""
    for selector, size, workers in RUNS:
        root = folder / str(size)
        command = [sys.executable, __file__, "--run", str(root), selector, str(workers)]
        log = folder / "log.txt"
        usage = measure(command, os.environ, log, limit_s=3600)
        if usage.code:
            raise SystemExit(f"{selector} failed: {usage.said}")
        yield {
            **{"selector": selector, "part": size, "workers": workers},
            "seconds": round(usage.seconds, 1),
            "cpu_s": round(usage.cpu_s, 1),
            "peak_mb": round(usage.peak_mb()),
            **json.loads(usage.said.strip().splitlines()[-1]),
        }


def main() -> None:
    """Make the datasets, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--run", nargs=3)
    asked = parser.parse_args()
    if asked.run:
        run(asked.run[0], asked.run[1], int(asked.run[2]))
        return
    pairs = 100_000 if asked.quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="compress-") as scratch:
        for size in sorted({size for _, size, _ in RUNS}):
            make(f"{scratch}/{size}", pairs, size)
        found = list(measured(Path(scratch)))
    print(f"{pairs:,} pairs, {how_many(None, pairs)} clusters, bars {BARS}")
    names = list(found[0])
    print("".join(f"{name:>18}" for name in names))
    for row in found:
        print("".join(f"{row[name]!s:>18}" for name in names))
    alike = {s: len({r["subset"] for r in found if r["selector"] == s}) == 1 for s, _, _ in RUNS}
    within = all(row[name] < bar for row in found for name, bar in BARS.items())
    result = {"bench": "compress", "pairs": pairs, "runs": found}
    print(json.dumps(result | {"same_subset": alike, "within_bars": within}))


if __name__ == "__main__":
    main()
