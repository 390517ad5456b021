"""The menu of list formats: one reader each, all with the same columns."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator

import pyarrow as pa

from curate.sources.columns import Rows
from curate.sources.files import Source
from curate.sources.parquet import read_parquet
from curate.sources.text import read_csv, read_jsonl
from curate.sources.webdataset import read_webdataset
from schemas.configs import IngestConfig

READERS = {
    "parquet": read_parquet,
    "datacomp": read_parquet,
    "csv": read_csv,
    "tsv": read_csv,
    "jsonl": read_jsonl,
    "webdataset": read_webdataset,
}
_BROKEN = (pa.ArrowException, tarfile.TarError, zlib.error, OSError, EOFError, UnicodeError)


def read(source: Source, config: IngestConfig) -> Iterator[Rows]:
    """The rows of a file, streamed. Raises ValueError naming the file and what is wrong with it."""
    try:
        yield from READERS[source.format](source, config)
    except _BROKEN as error:
        raise ValueError(
            f"{source.url}: cannot be read as {source.format}: {' '.join(str(error).split())}"
        ) from error
