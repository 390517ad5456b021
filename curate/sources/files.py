"""Files: what a path, folder, glob or list of these stands for, and the format of each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from curate.storage import is_local

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "datacomp": (".parquet",),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "jsonl": (".jsonl", ".ndjson"),
    "webdataset": (".tar",),
}
SHOWN = 5  # names in an error
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")  # of text formats


@dataclass(frozen=True)
class Source:
    """One file of a list."""

    fs: AbstractFileSystem
    path: str
    size: int  # bytes
    format: str

    @property
    def url(self) -> str:
        """An absolute path, or the fsspec URL of a file that is elsewhere."""
        return self.path if is_local(self.fs) else str(self.fs.unstrip_protocol(self.path))

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def sibling(self, suffix: str) -> Source | None:
        """The file beside this one that differs in its suffix, if there is one."""
        path = f"{self.path.rsplit('.', 1)[0]}{suffix}"
        if not self.fs.isfile(path):
            return None
        return Source(self.fs, path, int(self.fs.size(path)), self.format)

    def open(self) -> BinaryIO:
        """The file's bytes as they are."""
        return cast(BinaryIO, self.fs.open(self.path, "rb"))


def find(
    paths: str | Sequence[str], wanted: str, storage_options: Mapping[str, Any] | None = None
) -> list[Source]:
    """The files, each once, in the order of their names.

    wanted: a format, or "auto" to tell it from the names. A folder is searched with all folders
    below, without names that begin with "." or "_"; with "auto", a folder that holds tars is a
    WebDataset, its parquet files are sidecars. Raises ValueError where a path stands for no file,
    or where a format cannot be told.
    """
    found: dict[str, Source] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        fs, base = fsspec.core.url_to_fs(path, **(storage_options or {}))
        for file in _matches(fs, base, path, wanted):
            source = Source(fs, file, int(fs.size(file)), _format(file, wanted))
            found[source.url] = source
    if not found:
        raise ValueError(
            "the list of paths to ingest is empty: name at least one file, folder or glob"
        )
    return [found[url] for url in sorted(found)]


def _matches(fs: AbstractFileSystem, base: str, path: str, wanted: str) -> list[str]:
    if fs.isfile(base):
        return [base]
    if fs.isdir(base):
        return _in_folder(fs, base, path, wanted)
    files = (
        sorted(f for f in fs.glob(base) if fs.isfile(f)) if any(c in base for c in "*?[") else []
    )
    if not files:
        raise ValueError(
            f"no file matches {path!r}: it is no file, no folder and no glob that finds one"
        )
    return [f for f in files if not f.endswith(".npz")] if wanted in ("auto", "datacomp") else files


def _in_folder(fs: AbstractFileSystem, base: str, path: str, wanted: str) -> list[str]:
    below = sorted(
        f
        for f in fs.find(base)
        if not any(p[:1] in "._" for p in f[len(base.rstrip("/")) + 1 :].split("/"))
    )
    known = [
        f for f in below if _told(f) and (wanted == "auto" or plain(f).endswith(SUFFIXES[wanted]))
    ]
    tars = [f for f in known if f.endswith(SUFFIXES["webdataset"])]
    if not known:
        kinds = ", ".join(
            SUFFIXES["parquet"]
            + SUFFIXES["csv"]
            + SUFFIXES["tsv"]
            + SUFFIXES["jsonl"]
            + SUFFIXES["webdataset"]
        )
        looked = kinds if wanted == "auto" else ", ".join(SUFFIXES[wanted])
        there = ", ".join(f.rsplit("/", 1)[-1] for f in below[:SHOWN]) or "nothing"
        more = f" and {len(below) - SHOWN} more" if len(below) > SHOWN else ""
        raise ValueError(
            f"folder {path!r} has no file to ingest ({looked}); it holds {there}{more}"
        )
    return tars if wanted == "auto" and tars else known


def plain(path: str) -> str:
    """The name without the suffix of a compression."""
    return path.rsplit(".", 1)[0] if path.endswith(COMPRESSED) else path


def _told(path: str) -> str | None:
    compressed = path.endswith(COMPRESSED)
    formats = (
        ("csv", "tsv", "jsonl") if compressed else ("parquet", "csv", "tsv", "jsonl", "webdataset")
    )
    return next((f for f in formats if plain(path).lower().endswith(SUFFIXES[f])), None)


def _format(path: str, wanted: str) -> str:
    told = wanted if wanted != "auto" else _told(path)
    if told is None:
        raise ValueError(
            f"{path}: its name does not tell its format; "
            f"set `format` to one of {', '.join(SUFFIXES)}"
        )
    return told
