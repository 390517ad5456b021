"""Untyped: CSV and JSON values as text, and the type that a whole batch allows.

Readers note what they saw in each column; the type is decided when the batch was seen to its end,
so that no split of the list into files changes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.sources.columns import Columns, Kinds, canonical
from schemas.tables import clean

_INT = r"^-?(0|[1-9][0-9]{0,17})$"  # no leading zero: "007" is a name
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_BOOL = r"^(true|false)$"


def note_kinds(table: pa.Table, kinds: Kinds) -> None:
    """Add what the in_* columns of `table` hold to `kinds`; known text is not looked at again."""
    for name in table.column_names:
        if name.startswith("in_") and "text" not in (seen := kinds.setdefault(name, set())):
            seen |= _kind(table[name])


def _kind(column: pa.ChunkedArray) -> set[str]:
    values = column.drop_null()
    if not len(values):
        return set()
    for kind, pattern in (("int", _INT), ("float", _NUMBER), ("bool", _BOOL)):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            return {kind}
    return {"text"}


def typed(table: pa.Table, kinds: Mapping[str, set[str]]) -> pa.Table:
    """Untyped columns as int64, double or bool where the whole batch allows it, else as text."""
    for i, name in enumerate(table.column_names):
        kind = _final(kinds[name]) if name in kinds else None
        if kind is not None and table.schema.field(name).type == pa.string():
            table = table.set_column(i, name, table[name].cast(kind))
    return table


def _final(seen: set[str]) -> pa.DataType | None:
    if seen and seen <= {"int", "float"}:
        return pa.int64() if seen == {"int"} else pa.float64()
    return pa.bool_() if seen == {"bool"} else None


def from_dicts(
    rows: Sequence[Mapping[str, Any]], columns: Columns, file: str, kinds: Kinds
) -> pa.Table:
    """Rows of JSON objects as a canonical table of text; lists and objects become JSON text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    needed = [n for n in (columns.url, columns.caption, columns.uid) if n is not None]
    arrays = {}
    for name in dict.fromkeys([*needed, *names]):
        seen: set[str] = set()
        arrays[name] = _text_array([_text(row.get(name), seen) for row in rows])
        if name not in needed:
            kinds.setdefault(f"in_{clean(name)}", set()).update(seen)
    return canonical(pa.table(dict(arrays)), columns, file)


def _text_array(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # an unpaired surrogate, escaped in the JSON
        return pa.array([None if v is None else clean(v) for v in values], pa.string())


def _text(value: Any, seen: set[str]) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        seen.add("text")
        return value
    if isinstance(value, bool):
        seen.add("bool")
        return "true" if value else "false"
    if isinstance(value, int):
        seen.add("int" if -(2**63) <= value < 2**63 else "text")
        return str(value)
    if isinstance(value, float):
        seen.add("float")
        return (
            repr(value)
            if math.isfinite(value)
            else str(value).replace("inf", "Infinity").replace("nan", "NaN")
        )
    seen.add("text")
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
