"""Tars: members whose bytes depend on their names and contents alone, and where each one begins."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any, BinaryIO


def new(stream: BinaryIO) -> tarfile.TarFile:
    """A tar in webdataset's header format, to be closed by the caller (or `with`)."""
    return tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a member, owned by nobody at time 0; returns the offset of its content.

    name: at most 100 ASCII characters, so that the header is one block.
    """
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    begin = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return begin


def dumps(meta: dict[str, Any]) -> bytes:
    """JSON as img2dataset indents it; what JSON has no words for becomes text, and NaN null."""
    plain = json.loads(json.dumps(meta, default=str), parse_constant=lambda _: None)
    return json.dumps(plain, indent=4).encode()
