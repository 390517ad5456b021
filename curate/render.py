"""Render: an Arrow table as text for people, or as csv, json or parquet for programs."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

WIDEST = 60  # characters of a cell in a table for people


def render(rows: pa.Table, form: str) -> bytes:
    """The whole table as bytes; `form` is table, csv, json (one object per line) or parquet."""
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(rows, sink)
    elif form == "csv":
        pyarrow.csv.write_csv(_flat(rows), sink)
    elif form == "json":
        for row in rows.to_pylist():
            sink.write((json.dumps(row, default=_text, ensure_ascii=False) + "\n").encode())
    else:
        sink.write(_table(rows).encode())
    return sink.getvalue()


def _flat(rows: pa.Table) -> pa.Table:
    """CSV has no lists and no bytes: nested columns become JSON text, bytes hexadecimal."""
    return pa.table([_flat_column(c) for c in rows.columns], names=rows.column_names)


def _flat_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    nested = pa.types.is_nested(column.type)
    if not nested and not pa.types.is_binary(column.type):
        return column
    values = column.to_pylist()
    texts = [json.dumps(v, default=_text) if nested else _text(v) for v in values]
    known = [None if v is None else text for v, text in zip(values, texts, strict=True)]
    return pa.array(known, pa.string())


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def printable(value: Any) -> str:
    """A cell as one line: control characters from the web are escaped, so that they cannot drive a
    terminal.
    """
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _table(rows: pa.Table) -> str:
    cells = [[printable(v) for v in column.to_pylist()] for column in rows.columns]
    numeric = [pa.types.is_integer(c.type) or pa.types.is_floating(c.type) for c in rows.columns]
    widths = [
        max(map(len, [name, *column]))
        for name, column in zip(rows.column_names, cells, strict=True)
    ]

    def line(values: list[str]) -> str:
        padded = (
            v.rjust(w) if n else v.ljust(w) for v, w, n in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    body = [line([column[i] for column in cells]) for i in range(rows.num_rows)]
    return (
        "\n".join([line(list(rows.column_names)), "  ".join("-" * w for w in widths), *body]) + "\n"
    )
