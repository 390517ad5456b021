"""WebDataset folders, read: what lies in each tar, and any member's bytes by range.

A sample's key is its member's path up to the first dot of the base name; its members are
contiguous. Members named `__like_this__` are skipped. Reading is by `tarfile` alone, so that no
version of webdataset is asked for.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec

from curate.claims import digest
from curate.storage import names

IMAGES = ("jpg", "png", "jpeg", "webp")  # open_clip's, in its order
TEXTS = ("txt", "json", "cls")
MAX_TEXT = 1 << 20  # bytes of a text member that are read


@dataclass(frozen=True)
class Sample:
    """A sample: `image` is its (offset, size) in the tar, `texts` its small text members."""

    key: str
    tar: str
    image: tuple[int, int] | None
    texts: dict[str, bytes]


@dataclass
class Folder:
    """The tars directly in a local folder or under an fsspec URL.

    Raises ValueError where there are none.
    """

    url: str
    storage_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fs, path = fsspec.core.url_to_fs(str(self.url), **self.storage_options)
        self.path = path.rstrip("/")
        self.tars = [n for n in names(self.fs, self.path) if n.endswith(".tar")]
        if not self.tars:
            raise ValueError(
                f"{self.url}: no .tar file there; give the folder that `curate export` printed, or "
                "any WebDataset folder"
            )

    def state(self) -> str:
        """A hash that changes when the shards do.

        It is of the names and sizes of the tars, and what our export says of itself.
        """
        note = f"{self.path}/.curate"
        own = self.fs.cat_file(note).decode() if self.fs.exists(note) else ""
        return digest([own, [[t, self.fs.size(f"{self.path}/{t}")] for t in self.tars]])

    def samples(self) -> Iterator[Sample]:
        """All samples, tar by tar, in their order. Image bytes are not read."""
        for tar in self.tars:
            yield from self._tar(tar)

    def read(self, tar: str, offset: int, size: int) -> bytes:
        """A member's bytes."""
        return bytes(self.fs.cat_file(f"{self.path}/{tar}", start=offset, end=offset + size))

    def _tar(self, tar: str) -> Iterator[Sample]:
        key, image = "", None
        texts: dict[str, bytes] = {}
        try:
            with (
                self.fs.open(f"{self.path}/{tar}", "rb") as stream,
                tarfile.open(fileobj=stream, mode="r:") as archive,
            ):
                for member in archive:
                    prefix, suffix = split(member.name)
                    if not member.isfile() or suffix is None:
                        continue
                    if prefix != key:
                        if key:
                            yield Sample(key, tar, image, texts)
                        key, image, texts = prefix, None, {}
                    if suffix in IMAGES:
                        image = image or (member.offset_data, member.size)
                    elif suffix in TEXTS and member.size <= MAX_TEXT:
                        file = archive.extractfile(member)
                        texts[suffix] = file.read() if file else b""
        except tarfile.ReadError as error:
            raise ValueError(
                f"{self.url}/{tar}: not a whole tar ({error}); export or fetch it again"
            ) from error
        if key:
            yield Sample(key, tar, image, texts)


def split(name: str) -> tuple[str, str | None]:
    """Key and lower-case extension of a member; no extension for what WebDataset skips."""
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not dot or not stem or (stem.startswith("__") and stem.endswith("__")):
        return name, None
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()
