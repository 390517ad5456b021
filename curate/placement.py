"""Placement: which rows of a batch are distinct, which are known, and which part each lies in.

A batch of P parts from number F on has the rows whose place is in [k/P, (k+1)/P) of all places in
its part F + k. `ORIGIN` in the parts' artifact says so: only parts that can hold a URL are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.spill import PLACE
from curate.versions import Part

ORIGIN = re.compile(r"^(?P<batch>[^@]+)@(?P<first>\d+)\+(?P<count>\d+)#(?P<identity>[0-9a-f]+)$")


def distinct(rows: pa.Table) -> pa.Table:
    """uid, place, n and the row that stands for it, of every uid, sorted by place."""
    codes = rows["uid"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, row, n = np.unique(codes, return_index=True, return_counts=True)
    repeated = np.flatnonzero(n[codes] > 1)
    if len(repeated):
        order = repeated[_preferred(rows.take(repeated))]
        code, at = np.unique(codes[order], return_index=True)
        row[code] = order[at]
    place = rows[PLACE].to_numpy()[row]
    order = np.argsort(place, kind="stable")
    found = rows.select(["uid", PLACE]).take(row[order])
    return found.append_column("n", pa.array(n[order], pa.int64())).append_column(
        "row", pa.array(row[order])
    )


def _preferred(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Indices of the rows, the preferred first: with an image at hand, then by their values."""
    first = [n for n in ("tar", "tar_offset", "source_uid") if n in rows.column_names]
    names = first + sorted(
        n for n in rows.column_names if n not in (*first, "uid", "url", "caption", PLACE)
    )
    keys = pa.table({f"k{i}": _sortable(rows[name]) for i, name in enumerate(names)})
    order = [(k, "ascending") for k in keys.column_names]
    found: npt.NDArray[np.int64] = pc.sort_indices(keys, order).to_numpy()
    return found


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_nested(column.type):
        return pa.array([None if v is None else repr(v) for v in column.to_pylist()], pa.string())
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def known_before(data: Dataset, pairs: pa.Table) -> pa.Array:
    """Which of the pairs, sorted by place, `urls` has. Reads the parts that cover their places."""
    known = np.zeros(pairs.num_rows, dtype=bool)
    if "urls" not in data.tables() or not pairs.num_rows:
        return pa.array(known)
    uid, place = pairs["uid"].combine_chunks(), pairs[PLACE].to_numpy()
    for part, entry in data.parts("urls").items():
        low, high = _covered(place, part, entry)
        if low < high:
            old = data.read("urls", part, ["uid"])["uid"]
            known[low:high] |= pc.is_in(uid.slice(low, high - low), value_set=old).to_numpy(
                zero_copy_only=False
            )
    return pa.array(known)


def _covered(place: npt.NDArray[np.uint64], part: int, entry: Part) -> tuple[int, int]:
    """Which of the sorted places lie in a part."""
    origin = ORIGIN.match(str(entry.inputs.get("artifact", "")))
    if origin is None:
        return 0, len(place)
    begin, end = bounds_of(part - int(origin["first"]), int(origin["count"]))
    high = len(place) if end >= 1 << 64 else int(np.searchsorted(place, np.uint64(end)))
    return int(np.searchsorted(place, np.uint64(begin))), high


def part_of(place: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.int64]:
    """Which of `count` < 2^32 parts a row lies in: floor(place * count / 2^64), exactly."""
    high, low = place >> np.uint64(32), place & np.uint64(0xFFFFFFFF)
    n = np.uint64(count)
    return ((high * n + ((low * n) >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)


def bounds_of(part: int, count: int) -> tuple[int, int]:
    """The places [begin, end) of part `part` of `count`."""
    return -(-(part << 64) // count), -(-((part + 1) << 64) // count)


def in_parts(tables: Iterator[pa.Table], count: int) -> Iterator[tuple[int, pa.Table]]:
    """Cut tables sorted by place, one after the other, into (part, rows), without empty parts."""
    open_part = -1
    held: list[pa.Table] = []
    for table in tables:
        parts = part_of(table[PLACE].to_numpy(), count)
        cuts = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for low, high in pairwise(cuts):
            if low == high:
                continue
            if parts[low] != open_part and held:
                yield open_part, pa.concat_tables(held)
                held = []
            open_part = int(parts[low])
            held.append(table.slice(low, high - low))
    if held:
        yield open_part, pa.concat_tables(held)
