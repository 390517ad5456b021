"""Spill: rows on scratch disk by place, the hash of their URL, so that memory stays bounded.

Rows are cut into 256 buckets by the first byte of sha256(url). Every flush is one Arrow file with
one record batch per bucket, so a bucket is read from all of them, and no file stays open. Files are
read, not mapped: pages of mapped files would count as memory of this process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BUCKETS = 256
FLUSH_BYTES = 96 << 20
GROUP_ROWS, GROUP_BYTES = 250_000, 128 << 20  # what is worked on at a time
PLACE = "place"  # uint64: the first 64 bits of sha256(url), big-endian


class Spill:
    """Takes tables with a `place` column, gives them back in groups of neighbouring buckets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = self.bytes = 0
        self.schema: pa.Schema | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._files: list[str] = []

    def add(self, table: pa.Table, file: str) -> None:
        """Take rows of `file`. Raises ValueError where a column does not fit the earlier rows."""
        if self.schema is None or not table.schema.equals(self.schema):
            self.schema = _joined(self.schema, table.schema, file)
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= FLUSH_BYTES:
            self.flush()

    @property
    def names(self) -> list[str]:
        """The columns of all rows."""
        return [] if self.schema is None else list(self.schema.names)

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting, promote_options="permissive")
        self.bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        buckets = table[PLACE].to_numpy() >> np.uint64(56)
        order = np.argsort(buckets, kind="stable")
        bounds = np.searchsorted(buckets[order], np.arange(BUCKETS + 1, dtype=np.uint64))
        whole = _one_batch(table.take(order))
        path = str(self.folder / f"{len(self._files):06d}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for low, high in pairwise(bounds.tolist()):
                writer.write_batch(whole.slice(low, high - low))
        self._files.append(path)

    def groups(self) -> list[range]:
        """Ranges of buckets that are small enough to work on, in order; as many buckets in each."""
        self.flush()
        need = max(self.rows / GROUP_ROWS, self.bytes / GROUP_BYTES, 1)
        count = min(BUCKETS, 1 << int(np.ceil(np.log2(need))))
        size = BUCKETS // count
        return [range(g * size, (g + 1) * size) for g in range(count)]

    def read(self, group: range) -> pa.Table:
        """The rows of a group, always in the same order, with the whole's columns and types."""
        tables = [] if self.schema is None else [self.schema.empty_table()]
        for path in self._files:
            with pa.OSFile(path, "rb") as stream, pa.ipc.open_file(stream) as file:
                batches = [file.get_batch(b) for b in group]
                tables.append(pa.Table.from_batches(batches, file.schema))
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _joined(known: pa.Schema | None, new: pa.Schema, file: str) -> pa.Schema:
    if known is None:
        return new
    try:
        return pa.unify_schemas([known, new], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{file}: its columns do not fit the files before: {why}; "
            "ingest it as a batch of its own"
        ) from error


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    whole = table.combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], table.schema)


# ---------------------------------------------------------------------- identity and place


def hexadecimal(joined: pa.Array) -> pa.Array:
    """The first 128 bits of sha256 of every text, as 32 hex characters."""
    text = b"".join([d[:16] for d in _digests(joined)]).hex().encode()
    offsets = np.arange(len(joined) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(joined), pa.py_buffer(offsets), pa.py_buffer(text))


def places(urls: pa.Array) -> npt.NDArray[np.uint64]:
    """uint64 [n]: the first 64 bits of sha256 of every URL."""
    return np.frombuffer(b"".join([d[:8] for d in _digests(urls)]), dtype=">u8").astype(np.uint64)


def _digests(texts: pa.Array) -> Iterator[bytes]:
    """sha256 of every text, from Arrow's own buffers."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[
        texts.offset : texts.offset + len(texts) + 1
    ].tolist()
    data = texts.buffers()[2]
    view = memoryview(data) if data is not None else memoryview(b"")
    sha256 = hashlib.sha256
    return (sha256(view[a:b]).digest() for a, b in pairwise(offsets))
