"""Small lists of URLs, and what a dataset made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset


def pairs(n: int, begin: int = 0) -> list[dict[str, Any]]:
    return [
        {"url": f"http://a.example/{i}.jpg", "caption": f"caption {i}", "width": i}
        for i in range(begin, begin + n)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def table(data: Dataset, name: str) -> list[dict[str, Any]]:
    parts = [data.read(name, p) for p in sorted(data.parts(name))]
    return pa.concat_tables(parts, promote_options="permissive").to_pylist()


def state(data: Dataset) -> dict[str, dict[int, list[dict[str, Any]]]]:
    return {
        name: {part: data.read(name, part).to_pylist() for part in data.parts(name)}
        for name in data.tables()
    }
