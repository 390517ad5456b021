"""Compaction: many narrow parts in one file, a row group each: billions of pairs, few files.

Publishing does it. A part keeps its number, its generation and its inputs; only where its rows lie
changes. `urls` and `samples`, whose file names number the parts, and tables with lists or bytes
stay as they are. A part without rows has no row group of its own and stays a single file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from curate import storage
from curate.versions import Part

ROWS = 1_000_000  # of a compacted file, about
LEAST_PARTS = 50  # fewer are left alone
THREADS = 2  # Parquet is read and written outside of Python's lock
NUMBERING = ("urls", "samples")
UNIQUE = (
    "uid",
    "caption_id",
    "other_uid",
)  # no two alike: a dictionary of them costs time and bytes


def compact(
    fs: AbstractFileSystem, folder: str, parts: dict[int, Part], before: Mapping[int, Part]
) -> dict[int, Part]:
    """The same parts, with every full run of single files moved into one compacted file.

    before: the parts as they are published. What is left of a compacted file whose other parts have
    been made anew moves out of it: a view reads whole files.
    """
    moved = dict(parts)
    for file in _outdated(parts, before):
        if left := {p: e for p, e in sorted(moved.items()) if e.file == file}:
            moved |= _write(fs, folder, left)
    if folder.rsplit("/", 1)[-1] in NUMBERING or not _is_narrow(fs, folder, moved):
        return moved
    runs = [{p: parts[p] for p in run} for run in _runs(parts)]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="compact") as pool:
        for done in pool.map(lambda run: _write(fs, folder, run), runs):
            moved |= done
    return moved


def _outdated(parts: Mapping[int, Part], before: Mapping[int, Part]) -> list[str]:
    """Compacted files that also hold parts which now are elsewhere, or nowhere."""
    gone = (e for p, e in before.items() if e.row_group is not None and parts.get(p) != e)
    return sorted({e.file for e in gone})


def _runs(parts: dict[int, Part]) -> list[list[int]]:
    """Runs of neighbouring single files that hold about ROWS rows; what is left over waits."""
    runs: list[list[int]] = []
    run: list[int] = []
    for number, part in sorted(parts.items()):
        if part.row_group is not None:
            run = []
        elif part.rows:
            run = [*run, number]
        if sum(parts[p].rows for p in run) >= ROWS and len(run) >= LEAST_PARTS:
            runs.append(run)
            run = []
    return runs


def _is_narrow(fs: AbstractFileSystem, folder: str, parts: dict[int, Part]) -> bool:
    single = [p.file for p in parts.values() if p.row_group is None]
    if len(single) < LEAST_PARTS:
        return False
    with fs.open(f"{folder}/{single[0]}", "rb") as stream:
        schema = pq.read_schema(stream)
    return not any(pa.types.is_nested(f.type) or pa.types.is_binary(f.type) for f in schema)


def _write(fs: AbstractFileSystem, folder: str, parts: dict[int, Part]) -> dict[int, Part]:
    whole = hashlib.sha256(repr([(n, p.generation) for n, p in parts.items()]).encode()).hexdigest()
    name = f"{min(parts):08d}-{max(parts):08d}.{whole[:16]}.parquet"
    tables = _tables(fs, folder, parts.values())
    with storage.writing(fs, f"{folder}/{name}") as stream:
        writer: pq.ParquetWriter | None = None
        for rows in tables:
            plain = rows.replace_schema_metadata(None)
            repeated = [c for c in plain.column_names if c not in UNIQUE]
            writer = writer or pq.ParquetWriter(
                stream, plain.schema, compression="zstd", use_dictionary=repeated
            )
            writer.write_table(plain, row_group_size=plain.num_rows)
        if writer:
            writer.close()
    return {
        number: replace(p, file=name, row_group=group)
        for group, (number, p) in enumerate(parts.items())
    }


def _tables(fs: AbstractFileSystem, folder: str, parts: Iterable[Part]) -> Iterator[pa.Table]:
    """The rows of each part; a file with several of them is fetched once."""
    name, file = "", None
    for part in parts:
        if part.file != name or file is None:
            name, file = part.file, None
            file = pq.ParquetFile(pa.BufferReader(fs.cat_file(f"{folder}/{name}")))
        if part.row_group is None:
            yield file.read(use_threads=False)
        else:
            yield file.read_row_group(part.row_group, use_threads=False)
