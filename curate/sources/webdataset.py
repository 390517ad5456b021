"""WebDataset: folders of tars as img2dataset writes them, taken in without downloading again.

Of each tar only headers, captions and JSON are read; the image's place (tar, tar_offset, tar_size)
goes into the rows, and the download stage copies its bytes. With img2dataset's parquet beside the
tar (it has `key` and `url`) the rows come from there, failed ones too: they have no tar and are
downloaded. Else from each sample's .json and .txt; a sample that names no URL gets wds://<tar's
name>#<key>, one without image and URL is skipped for want of a URL.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.sources.columns import (
    CAPTIONS,
    UIDS,
    URLS,
    Columns,
    Kinds,
    Rows,
    canonical,
    recognise,
    resolve,
)
from curate.sources.files import Source
from curate.sources.untyped import from_dicts
from schemas.configs import IngestConfig

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jxl"})
TEXT_BYTES = 1 << 20  # a caption or JSON is never longer

Place = tuple[int, int]  # offset and size of an image's bytes in its tar


def read_webdataset(source: Source, config: IngestConfig) -> Iterator[Rows]:
    """Rows of one tar and the parquet beside it."""
    kinds: Kinds = {}
    rows = _sidecar(source)
    places, dicts = _walk(source, config, read_text=rows is None)
    if rows is not None:
        table = canonical(rows, resolve(rows.column_names, config, source.url), source.url)
        keys = [str(k) for k in rows["key"].to_pylist()]
        if lost := sorted(set(places) - set(keys)):
            raise ValueError(
                f"{source.url}: sample {lost[0]!r} is not in the parquet beside it; "
                "is it another tar's?"
            )
    else:
        keys = list(dicts)
        table = from_dicts(
            list(dicts.values()), Columns("url", "caption", "uid"), source.url, kinds
        )
    yield Rows(_with_places(table, [places.get(k) for k in keys], source.url), 1.0, kinds)


def _with_places(table: pa.Table, places: list[Place | None], tar: str) -> pa.Table:
    found = {
        "tar": pa.array([None if p is None else tar for p in places], pa.string()),
        "tar_offset": pa.array([None if p is None else p[0] for p in places], pa.int64()),
        "tar_size": pa.array([None if p is None else p[1] for p in places], pa.int64()),
    }
    for name, column in found.items():
        table = table.append_column(name, column)
    return table


def _sidecar(source: Source) -> pa.Table | None:
    beside = source.sibling(".parquet")
    if beside is None:
        return None
    with beside.open() as stream:
        rows = pq.read_table(stream)
    return rows if "key" in rows.column_names and recognise(rows.column_names, URLS) else None


def _walk(
    source: Source, config: IngestConfig, read_text: bool
) -> tuple[dict[str, Place], dict[str, dict[str, Any]]]:
    """By key: where the image lies, and what .txt and .json say of it."""
    places: dict[str, Place] = {}
    texts: dict[str, dict[str, bytes]] = {}
    with source.open() as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # else it remembers every header
            key, _, suffix = member.name.rpartition("/")[2].partition(".")
            if not member.isfile() or key.startswith("__"):
                continue
            key = f"{member.name.rpartition('/')[0]}/{key}".lstrip("/")
            texts.setdefault(key, {})
            if suffix.lower() in IMAGES:
                places.setdefault(key, (member.offset_data, member.size))
            elif read_text and suffix in ("txt", "json"):
                texts[key][suffix] = _content(tar, member, source)
    return places, {
        k: _row(k, v, k in places, source, config) for k, v in texts.items()
    } if read_text else {}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, source: Source) -> bytes:
    if member.size > TEXT_BYTES:
        raise ValueError(
            f"{source.url}: {member.name} has {member.size} bytes; "
            f"captions and JSON have at most {TEXT_BYTES}"
        )
    content = tar.extractfile(member)
    return content.read() if content is not None else b""


def _row(
    key: str, texts: dict[str, bytes], has_image: bool, source: Source, config: IngestConfig
) -> dict[str, Any]:
    try:
        row = json.loads(texts.get("json", b"{}").decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{source.url}: the JSON of sample {key!r} is not JSON: {error}"
        ) from error
    row = row if isinstance(row, dict) else {"json": row}
    names = list(row)
    url = row.pop(config.url_column or recognise(names, URLS) or "", None)
    caption = row.pop(config.caption_column or recognise(names, CAPTIONS) or "", None)
    uid = row.pop(config.uid_column or recognise(names, UIDS) or "", None)
    if caption is None and "txt" in texts:
        caption = texts["txt"].decode("utf-8", "replace")
    if not url and has_image:
        url = f"wds://{source.name}#{key}"
    return row | {"url": url, "caption": caption, "uid": uid}
