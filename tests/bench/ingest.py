"""How fast a long list is taken in, and in how much memory.

    uv run python tests/bench/ingest.py            10 million rows
    uv run python tests/bench/ingest.py --quick    1 million rows

Makes parquet files of synthetic LAION-like rows (5 % of them repeated), ingests them, and ingests
one tenth of them again as a second batch. Prints a small table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.ingest import ingest
from schemas.configs import IngestConfig

FILES = 10
WORDS = np.array(["red", "green", "small", "old", "photo", "house", "cat", "river", "street"])


def rows(begin: int, end: int) -> pa.Table:
    """Rows whose URL and caption depend on their number alone; every twentieth repeats another."""
    number = np.arange(begin, end)
    number = np.where(number % 20 == 0, number // 20, number)
    words = WORDS[(number[:, None] * 7919 + np.arange(8) ** 3) % len(WORDS)]
    caption = [f"{' '.join(w)} {n}" for w, n in zip(words.tolist(), number.tolist(), strict=True)]
    url = [f"https://images.example.org/{n % 997}/{n:012d}/photo.jpg" for n in number.tolist()]
    return pa.table(
        {
            "SAMPLE_ID": pa.array(number),
            "URL": pa.array(url),
            "TEXT": pa.array(caption),
            "WIDTH": pa.array((number % 2000).astype(np.int32)),
            "HEIGHT": pa.array((number % 1500).astype(np.int32)),
            "similarity": pa.array((number % 1000 / 1000).astype(np.float32)),
        }
    )


def make(folder: Path, total: int) -> None:
    """Write the list, in pieces so that this takes little memory itself."""
    for file in range(FILES):
        begin, end = file * total // FILES, (file + 1) * total // FILES
        with pq.ParquetWriter(folder / f"{file:03d}.parquet", rows(0, 1).schema) as writer:
            for low in range(begin, end, 50_000):
                writer.write_table(rows(low, min(low + 50_000, end)))


def timed(data: Dataset, path: Path, batch: str) -> float:
    """Seconds to ingest."""
    began = time.perf_counter()
    ingest(data, IngestConfig(path=str(path), batch=batch))
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    total = 1_000_000 if parser.parse_args().quick else 10_000_000
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as scratch:
        lists = Path(scratch) / "lists"
        lists.mkdir()
        make(lists, total)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = Dataset(f"{scratch}/data")
        cpu = time.process_time()
        first = timed(data, lists, "first")
        cpu = time.process_time() - cpu
        second = timed(data, lists / "003.parquet", "second")
        used = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "bench": "ingest",
            "rows": total,
            "pairs": data.rows("urls"),
            "rows_per_s": round(total / first),
            "cpu_s_per_million": round(cpu * 1e6 / total, 1),
            "second_batch_rows_per_s": round(total / FILES / second),
            "peak_rss_mb": round(used.ru_maxrss / 1024),
            "rss_before_mb": round(before / 1024),
            "parts": len(data.parts("urls")),
            "written_mb": round(sum(data.fs.size(f) for f in data.files("urls")) / 1e6),
        }
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
