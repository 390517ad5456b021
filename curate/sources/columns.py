"""Columns: which column is the URL, the caption and the uid, and text as UTF-8 can hold it.

Every reader gives tables with the same columns: url, caption, source_uid (text), perhaps tar,
tar_offset, tar_size and score:<name>, and every other input column as in_<name>; untyped.py
decides the types of CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from schemas.configs import IngestConfig
from schemas.tables import clean

# recognised in this order, in any case
URLS = (
    "url",
    "image_url",
    "img_url",
    "imageurl",
    "photo_image_url",
    "image_link",
    "image_src",
    "uri",
    "link",
    "src",
)
CAPTIONS = (
    "caption",
    "text",
    "txt",
    "alt",
    "alt_text",
    "alttext",
    "title",
    "description",
    "sentence",
)
UIDS = ("uid", "sample_id")
SCORE = "score:"  # prefix of columns that go to scores_datacomp

Kinds = dict[str, set[str]]  # what an untyped column has held: int | float | bool | text


@dataclass(frozen=True)
class Columns:
    """The names that a file has for what we need."""

    url: str
    caption: str | None
    uid: str | None


@dataclass
class Rows:
    """Some rows of a file.

    done: share of the file, 0..1. kinds: what its untyped columns have held so far.
    """

    table: pa.Table
    done: float
    kinds: Kinds = field(default_factory=dict)


def resolve(names: Sequence[str], config: IngestConfig, file: str) -> Columns:
    """Find the columns. Raises ValueError with the file, what is missing and what is there."""
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"{file}: two columns are named {twice[0]!r}; rename one of them")
    found = ", ".join(names) or "none"
    for knob in ("url_column", "caption_column", "uid_column"):
        wanted = getattr(config, knob)
        if wanted is not None and wanted not in names:
            raise ValueError(f"{file}: no column {wanted!r} ({knob}); its columns are: {found}")
    url = config.url_column or recognise(names, URLS)
    if url is None:
        raise ValueError(
            f"{file}: no url column; its columns are: {found}. Name it with url_column"
        )
    caption = config.caption_column or recognise(names, CAPTIONS)
    return Columns(url, caption, config.uid_column or recognise(names, UIDS))


def recognise(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The first name of `known` that is there, in any case; exact case first."""
    for wanted in known:
        if wanted in names:
            return wanted
        if match := next((n for n in names if n.lower() == wanted), ""):
            return match
    return None


def canonical(table: pa.Table, columns: Columns, file: str) -> pa.Table:
    """The table with our column names and clean text."""
    made: dict[str, pa.Array] = {"url": as_text(table, columns.url, file)}
    none = pa.nulls(table.num_rows, pa.string())
    made["caption"] = none if columns.caption is None else as_text(table, columns.caption, file)
    made["source_uid"] = none if columns.uid is None else as_text(table, columns.uid, file)
    used = {columns.url, columns.caption, columns.uid}
    for name in table.column_names:
        if name not in used:
            made[f"in_{clean(name)}"] = _plain(table[name])
    return pa.table(made)


def as_text(table: pa.Table, name: str, file: str) -> pa.Array:
    """A column as clean UTF-8. Raises ValueError for lists and structs."""
    array = _plain(table[name])
    if pa.types.is_nested(array.type):
        raise ValueError(
            f"{file}: column {name!r} holds {array.type}, text is needed; name another column"
        )
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return _cleaned(array.cast(pa.binary()))
    return array if pa.types.is_string(array.type) else _plain(array.cast(pa.string()))


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Without dictionaries and chunks, text valid and with 32-bit offsets."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays([pa.array([], array.type), *array.chunks])
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(is_text(array.type) for is_text in text):
        return array
    if not pa.types.is_string(array.type):
        array = array.cast(pa.large_binary()).cast(pa.binary()).view(pa.string())
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return _cleaned(array.view(pa.binary()))
    return array


def _cleaned(raw: pa.Array) -> pa.Array:
    return pa.array([None if b is None else _decode(b) for b in raw.to_pylist()], pa.string())


def _decode(raw: bytes) -> str:
    try:
        return clean(raw.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")
