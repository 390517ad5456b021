"""Items: an evaluation set (a folder of images, parquet files or WebDataset shards; any fsspec URL)
-> its images' bytes and captions, one by one.

What a folder holds is told by its files' names: shards, else parquet, else images. Keys are unique
and the same wherever the set lies:

    folder       birds/1.jpg            path below the folder
    parquet      17, or a.parquet#17    row; file and row where there are several
    WebDataset   test/0.tar/000017      path of the tar, key of the sample
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from curate.claims import digest
from curate.sources.columns import CAPTIONS, recognise
from curate.sources.webdataset import IMAGES
from curate.wds import Folder, Sample

# of a parquet, recognised in this order, in any case; else the first column of bytes
IMAGE_COLUMNS = (
    *("image", "img", "jpg", "png", "jpeg", "webp", "image_bytes", "bytes"),
    *("image_path", "path", "filepath", "file_path", "file_name", "filename", "file"),
)
SUFFIXES = tuple(f".{suffix}" for suffix in sorted(IMAGES))
TARS, PARQUETS = (".tar",), (".parquet", ".pq")
BATCH = 64  # rows of a parquet at a time
MOST_TEXT = 1 << 20  # bytes of a sidecar that are read


@dataclass(frozen=True)
class Item:
    """image: gives the bytes; raises OSError where there are none."""

    key: str
    image: Callable[[], bytes]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationSet:
    """The files of a set. files: path below `base` -> size and, where the store tells one, ETag."""

    path: str
    fs: AbstractFileSystem
    base: str
    files: dict[str, list[Any]]

    def state(self) -> str:
        """A hash that changes with the names and sizes of the files (and their ETags), wherever
        they lie; images that a parquet names by path are not among them.
        """
        return digest(sorted(self.files.items()))

    def items(self) -> Iterator[Item]:
        """All items, in the order of their files."""
        for suffixes, read in ((TARS, self._shards), (PARQUETS, self._parquets)):
            if chosen := self._named(suffixes):
                return read(chosen)
        return self._images(self._named(SUFFIXES))

    def _named(self, suffixes: tuple[str, ...]) -> list[str]:
        return sorted(name for name in self.files if name.lower().endswith(suffixes))

    def _at(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _images(self, names: list[str]) -> Iterator[Item]:
        for name in names:
            beside = f"{name.rsplit('.', 1)[0]}.txt"
            told = self.files.get(beside, [MOST_TEXT + 1])[0] <= MOST_TEXT
            text = self.fs.cat_file(self._at(beside)) if told else b""
            yield Item(name, partial(_read, self.fs, self._at(name)), _lines(text))

    def _shards(self, names: list[str]) -> Iterator[Item]:
        for name in names:
            below, _, tar = self._at(name).rpartition("/")
            folder = Folder(str(self.fs.unstrip_protocol(below)), dict(self.fs.storage_options))
            folder.tars = [tar]
            unique = _Unique()
            for sample in folder.samples():
                if sample.image is not None:
                    image = partial(folder.read, tar, *sample.image)
                    yield Item(unique(f"{name}/{sample.key}"), image, _said(sample))

    def _parquets(self, names: list[str]) -> Iterator[Item]:
        for name in names:
            row, prefix = 0, f"{name}#" if len(names) > 1 else ""
            with self.fs.open(self._at(name), "rb") as stream:
                file = pq.ParquetFile(stream)
                column = _image_column(file.schema_arrow, f"{self.path}: {name}")
                told = [n for n in file.schema_arrow.names if _is_caption(n) and n != column]
                for batch in file.iter_batches(BATCH, columns=[column, *told], use_threads=False):
                    for values in batch.to_pylist():
                        image = self._source(values[column], self._at(name))
                        captions = tuple(t for n in told for t in _texts(values[n]))
                        yield Item(f"{prefix}{row}", image, captions)
                        row += 1

    def _source(self, image: Any, parquet: str) -> Callable[[], bytes]:
        """Bytes, a path (below the parquet's folder, or absolute), or {bytes, path}."""
        if isinstance(image, dict):
            image = image["bytes"] if image.get("bytes") is not None else image.get("path")
        if isinstance(image, str):
            folder = "" if image.startswith("/") else f"{parquet.rpartition('/')[0]}/"
            return partial(_read, self.fs, f"{folder}{image}")
        return partial(bytes, image or b"")


def open_set(path: str) -> EvaluationSet:
    """The set at a path or URL. Raises ValueError where there is none, saying what is there."""
    fs, base = fsspec.core.url_to_fs(path)
    base = str(base).rstrip("/")
    if fs.isfile(base):
        folder, _, name = base.rpartition("/")
        found = {name: _seen(fs.info(base))}
        base = folder
    else:
        listed = fs.find(base, detail=True) if fs.exists(base) else {}
        below = {str(p)[len(base) + 1 :]: _seen(info) for p, info in listed.items()}
        found = {n: s for n, s in below.items() if not any(p[:1] in "._" for p in n.split("/"))}
    known = (*TARS, *PARQUETS, *SUFFIXES)
    if not any(name.lower().endswith(known) for name in found):
        there = ", ".join(sorted(found)[:5]) or "nothing"
        raise ValueError(
            f"evaluation set {path}: no images, no parquet and no tars there, but {there}; give a"
            " folder of images, a parquet with an image column, or a folder of WebDataset shards"
        )
    return EvaluationSet(path, fs, base, found)


def _seen(info: dict[str, Any]) -> list[Any]:
    return [int(info.get("size") or 0), str(info.get("ETag") or info.get("etag") or "")]


def _read(fs: AbstractFileSystem, path: str) -> bytes:
    return bytes(fs.cat_file(path))


def _image_column(schema: pa.Schema, where: str) -> str:
    named = recognise(schema.names, IMAGE_COLUMNS)
    found = named or next((f.name for f in schema if _holds_bytes(f.type)), None)
    if found is None:
        columns = ", ".join(f"{f.name} ({f.type})" for f in schema)
        raise ValueError(
            f"evaluation set {where} has no column of images, its columns are {columns}; call one"
            " `image`: bytes, {bytes, path}, or paths"
        )
    return found


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_caption(name: str) -> bool:
    """caption, captions, text, alt_text ...: also several of them, caption_0, caption_1 ..."""
    plain = name.lower().rstrip("0123456789").rstrip("_")
    return plain in CAPTIONS or plain.removesuffix("s") in CAPTIONS


def _texts(value: Any) -> list[str]:
    """A text, or a list of them; nothing else says something."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v.strip()]


def _lines(raw: bytes) -> tuple[str, ...]:
    """The whole text and, where it has several, each line."""
    text = raw.decode("utf-8", "replace")
    return tuple(dict.fromkeys(t for t in (text, *text.splitlines()) if t.strip()))


def _said(sample: Sample) -> tuple[str, ...]:
    """The captions of a sample's .txt and .json."""
    try:
        about = json.loads(sample.texts.get("json", b"{}"))
    except ValueError:
        about = {}
    about = about if isinstance(about, dict) else {}
    found = [t for name, value in about.items() if _is_caption(name) for t in _texts(value)]
    return tuple(dict.fromkeys([*_lines(sample.texts.get("txt", b"")), *found]))


class _Unique:
    """Keys of which each is given once: a further one of the same gets its number."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    def __call__(self, key: str) -> str:
        self.times[key] = self.times.get(key, 0) + 1
        return key if self.times[key] == 1 else f"{key}~{self.times[key]}"
