"""What a dataset holds: byte for byte, or pair by pair whatever the parts are."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset import Dataset

# how often a server was asked, and when, are no results
NEVER_EQUAL = ("_versions/", "_stats.json", ".tmp")
PLAN = "_artifacts/export/"  # scratch of an export: a killed one can leave it behind
ROUNDED = ("scores_bootstrap", "rules_failed")  # what a model says, and what quotes it
OF_PARTS = ("attempts", "shard", "offset")  # of samples


def contents(data: Dataset) -> dict[str, bytes]:
    """Every file's bytes by its path in the dataset; `samples` without the column `attempts`."""
    found: dict[str, bytes] = {}
    for path in data.fs.find(data.path):
        name = str(path)[len(data.path) :].lstrip("/")
        if name.startswith(PLAN) or any(mark in name for mark in NEVER_EQUAL):
            continue
        body = data.fs.cat_file(path)
        found[name] = _without_attempts(body) if name.startswith("samples/0") else body
    return found


def _without_attempts(parquet: bytes) -> bytes:
    rows = pq.read_table(pa.BufferReader(parquet)).drop_columns(["attempts"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Paths that only one has, or whose bytes differ; for a message that can be read."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def by_pair(data: Dataset) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table but `sightings`, in an order that no part decides."""
    return {
        table: sorted((_plain(row) for row in rows_of(data, table)), key=repr)
        for table in data.tables()
        if table != "sightings"
    }


def rows_of(data: Dataset, table: str) -> list[dict[str, Any]]:
    """All rows of a table, part after part."""
    return [row for part in data.parts(table) for row in data.read(table, part).to_pylist()]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OF_PARTS}


def shards(data: Dataset) -> dict[str, bytes]:
    """The bytes of all exported files; `.curate` aside, which names the state of the parts."""
    found = contents(data).items()
    return {n: b for n, b in found if n.startswith("exports/") and not n.endswith(".curate")}


def files(data: Dataset, table: str) -> list[str]:
    """The file names of a table's parts."""
    return [entry.file for _, entry in sorted(data.parts(table).items())]


def assert_equal_but_for_rounding(one: Dataset, other: Dataset) -> None:
    """Scores of a model within 1e-5 and its float16 embeddings within 1e-3; all else is equal."""
    rows, others = by_pair(one), by_pair(other)
    for mine, theirs in zip(*(r["scores_bootstrap"] for r in (rows, others)), strict=True):
        assert mine["uid"] == theirs["uid"]
        assert mine["clip_score"] == pytest.approx(theirs["clip_score"], abs=1e-5)
        for column in ("image_emb", "text_emb", "own_image_emb", "own_text_emb"):
            assert mine[column] == pytest.approx(theirs[column], abs=1e-3)
    exact = rows.keys() - set(ROUNDED)
    assert {t: rows[t] for t in exact} == {t: others[t] for t in exact}
    assert different(shards(one), shards(other)) == []
