"""Body: the bytes of an answer, unpacked, never more than allowed, counted as they arrive."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.web.deadline import Deadline
from curate.web.failures import SHORT, UNREADABLE, Failure
from curate.web.room import Share

if TYPE_CHECKING:
    from aiohttp import ClientResponse

PIECE = 256 * 1024  # bytes that are unpacked in one go
MEMBERS = 64  # of one gzip stream: thousands of empty ones are an attack
GZIP, ZLIB, RAW = 31, 15, -15  # zlib's wbits
MAGIC = b"\x1f\x8b"


async def read_body(
    reply: ClientResponse, max_bytes: int, share: Share, deadline: Deadline, *, cut: bool = False
) -> bytes:
    """The whole body, its Content-Encoding undone. Raises Failure, or what aiohttp raises.

    max_bytes: of the body as sent, as declared and as unpacked. Each piece is taken from `share`
    before it is kept; the deadline stands still while there is no room. cut: the first bytes of a
    body that is larger are enough.
    """
    unpacker = _unpacker(reply)
    if (reply.content_length or 0) > max_bytes and not cut:
        raise _too_large(max_bytes)
    kept: list[bytes] = []
    sent = size = 0
    while chunk := await reply.content.readany():
        sent += len(chunk)
        for piece in unpacker.pieces(chunk) if unpacker else (chunk,):
            size += len(piece)
            if max(size, sent) > max_bytes and not cut:
                raise _too_large(max_bytes)
            if not share.take(len(piece)):
                with deadline.paused():
                    await share.wait(len(piece))
            elif len(piece) == PIECE:
                await asyncio.sleep(0)  # others have their turn while a large body is unpacked
            kept.append(piece)
            if size > max_bytes:
                return b"".join(kept)[:max_bytes]
    if unpacker:
        unpacker.end()
    return b"".join(kept)


def _too_large(max_bytes: int) -> Failure:
    return Failure(f"body larger than {max_bytes} bytes")


def _unpacker(reply: ClientResponse) -> Unpacker | None:
    """None where the body comes as it is, which we ask for and not everybody does."""
    value = ",".join(reply.headers.getall("Content-Encoding", []))
    names = [n for n in (part.strip().lower() for part in value.split(",")) if n]
    match [n for n in names if n != "identity"]:
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return Unpacker(gzip=True)
        case ["deflate"]:
            return Unpacker(gzip=False)
        case others:
            name = "".join(c for c in ", ".join(others) if c.isprintable())[:40]
            raise Failure(f"content encoding {name} is not supported")


class Unpacker:
    """Undoes gzip, with all its members, or deflate, with or without zlib's header, bit by bit."""

    def __init__(self, *, gzip: bool) -> None:
        self.gzip = gzip
        self.members = 0
        self.over = False  # what follows the last member is padding
        self.rest = b""  # too few bytes to know what they begin
        self.stream = zlib.decompressobj(GZIP)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """At most PIECE unpacked bytes at a time. Raises Failure for what is not so encoded."""
        data, self.rest = self.rest + data, b""
        piece = b""
        while (data or len(piece) == PIECE) and not self.over:
            if self._between() and not self._begin(data):
                return
            try:
                piece = self.stream.decompress(data, PIECE)
            except zlib.error as error:
                raise Failure(UNREADABLE) from error
            if piece:
                yield piece
            if self.stream.eof:
                data, piece = self.stream.unused_data, b""
            else:
                data = self.stream.unconsumed_tail

    def _between(self) -> bool:
        return self.members == 0 or self.stream.eof

    def _begin(self, data: bytes) -> bool:
        """The next member; False where nothing begins here, or it cannot be told yet."""
        if self.members and len(data) < len(MAGIC):
            self.rest = data
            return False
        if self.members and not (self.gzip and data.startswith(MAGIC)):
            self.over = True
            return False
        if self.members == MEMBERS:
            raise Failure(UNREADABLE)
        plain = ZLIB if data[0] & 0x0F == zlib.DEFLATED else RAW
        self.stream = zlib.decompressobj(GZIP if self.gzip else plain)
        self.members += 1
        return True

    def end(self) -> None:
        """Raises Failure where the stream stopped in the middle."""
        if self.members and not self.stream.eof:
            raise Failure(SHORT, again=True)
