"""Storage: whole files or none, on local disks and object stores alike. Written beside, renamed
last.

An object store shows a file only when its upload is complete, so there the rename is not needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether paths of this file system are paths of this machine."""
    return isinstance(fs, LocalFileSystem)


def names(fs: AbstractFileSystem, folder: str) -> list[str]:
    """File names in a folder, sorted; [] where there is none."""
    if is_local(fs):
        return sorted(p.name for p in Path(folder).iterdir()) if Path(folder).is_dir() else []
    fs.invalidate_cache(folder)
    try:
        return sorted(str(p).rsplit("/", 1)[-1] for p in fs.ls(folder, detail=False))
    except FileNotFoundError:
        return []


@contextmanager
def writing(fs: AbstractFileSystem, path: str) -> Iterator[BinaryIO]:
    """A stream whose file appears under `path` only when the block ends without an error."""
    if not is_local(fs):
        with tempfile.NamedTemporaryFile(prefix="curate-") as spool:
            yield cast("BinaryIO", spool)
            spool.flush()
            fs.put_file(spool.name, path)  # a failed upload leaves nothing, unlike a failed write
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with Path(beside).open("wb") as stream:
            yield stream
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)


def replace(fs: AbstractFileSystem, path: str, data: Any) -> None:
    """Write a whole file, in place of an older one."""
    with writing(fs, path) as stream:
        stream.write(data)


def create(fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a whole file unless one is there already: a hard link locally, a conditional put on an
    object store.
    """
    if not is_local(fs):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    beside = f"{path}.{os.getpid()}.tmp"
    Path(beside).write_bytes(data)
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        Path(beside).unlink()
    return True


def fill_folder(fs: AbstractFileSystem, path: str, make: Callable[[str], None]) -> None:
    """Let `make` fill a local scratch folder, then store its files under `path`; `_done` comes
    last.
    """
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        make(scratch)
        for file in sorted(p for p in Path(scratch).rglob("*") if p.is_file()):
            name = file.relative_to(scratch).as_posix()
            with writing(fs, f"{path}/{name}") as target, file.open("rb") as source:
                while block := source.read(1 << 22):
                    target.write(block)
    replace(fs, f"{path}/_done", b"")


@contextmanager
def as_local(fs: AbstractFileSystem, path: str) -> Iterator[Path]:
    """A folder as a local one: itself, or a copy that lives as long as the block."""
    if is_local(fs):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        fs.get(path.rstrip("/") + "/", scratch + "/", recursive=True)
        yield Path(scratch)
