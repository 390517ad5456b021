"""Text: CSV, TSV and JSONL files, plain or compressed, as a stream of canonical rows.

CSV and TSV follow RFC 4180: quoted fields may hold separators, doubled quotes and newlines. A
first line that holds an http(s) URL is data, not a header (CC3M's TSV has none): of two columns
the other one is then the caption, and a TSV's quotes are then characters like others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
from pyarrow import csv

from curate.sources.columns import Columns, Kinds, Rows, canonical, resolve
from curate.sources.files import Source
from curate.sources.untyped import from_dicts, note_kinds
from schemas.configs import IngestConfig

BLOCK = 8 << 20  # bytes; a row is never longer
JSON_ROWS = 20_000
PAIR = 2  # columns: a URL and its caption


def read_csv(source: Source, config: IngestConfig) -> Iterator[Rows]:
    """Rows of a CSV or TSV file, all columns text."""
    if source.size == 0:
        return
    names, headless = _header(source)
    columns = resolve(names, config, source.url)
    parse = _parse(source, quotes=source.format == "csv" or not headless)
    convert = csv.ConvertOptions(
        check_utf8=False,
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    read = csv.ReadOptions(
        block_size=BLOCK, column_names=names if headless else None, use_threads=False
    )
    kinds: Kinds = {}
    with source.open() as raw, csv.open_csv(_plain(source, raw), read, parse, convert) as batches:
        for batch in batches:
            table = canonical(pa.Table.from_batches([batch]), columns, source.url)
            note_kinds(table, kinds)
            yield Rows(table, _done(source, raw), kinds)


def _parse(source: Source, quotes: bool) -> csv.ParseOptions:
    return csv.ParseOptions(
        delimiter="\t" if source.format == "tsv" else ",",
        quote_char='"' if quotes else False,
        newlines_in_values=quotes,
    )


def _header(source: Source) -> tuple[list[str], bool]:
    """The names of the columns, and whether the file has no header."""
    with source.open() as raw:
        line = _plain(source, raw).readline(BLOCK)
    cells = _cells(line, _parse(source, quotes=source.format == "csv"))
    urls = [c for c in cells if c.startswith(("http://", "https://"))]
    if not urls:
        return _cells(line, _parse(source, quotes=True)), False
    other = "caption" if len(cells) == PAIR else "column_{}"
    return ["url" if c == urls[0] else other.format(i) for i, c in enumerate(cells)], True


def _cells(line: bytes, parse: csv.ParseOptions) -> list[str]:
    with csv.open_csv(io.BytesIO(line.rstrip(b"\r\n") + b"\n"), parse_options=parse) as batches:
        return [str(name) for name in batches.schema.names]


def read_jsonl(source: Source, config: IngestConfig) -> Iterator[Rows]:
    """Rows of a file with one JSON object per line.

    Its columns are looked for among the names in its first 20 000 rows.
    """
    kinds: Kinds = {}
    columns: Columns | None = None
    with source.open() as raw:
        objects = _objects(source, _plain(source, raw))
        while rows := list(islice(objects, JSON_ROWS)):
            columns = columns or resolve(
                list(dict.fromkeys(name for row in rows for name in row)), config, source.url
            )
            yield Rows(from_dicts(rows, columns, source.url, kinds), _done(source, raw), kinds)


def _objects(source: Source, stream: BinaryIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{source.url}: line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(
                f"{source.url}: line {number} is {type(value).__name__}, not a JSON object"
            )
        yield value


def _plain(source: Source, raw: BinaryIO) -> BinaryIO:
    compression = fsspec.utils.infer_compression(source.path)
    return raw if compression is None else fsspec.compression.compr[compression](raw, mode="rb")


def _done(source: Source, raw: BinaryIO) -> float:
    return min(1.0, raw.tell() / max(source.size, 1))
