"""What the fault server answers: every way in which the web goes wrong."""

from __future__ import annotations

import gzip
import io
import itertools
import socket
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from tests.fault_server import FaultServer


def picture(
    seed: int, width: int = 80, height: int = 60, kind: str = "JPEG", mode: str = "RGB"
) -> bytes:
    """A smooth random image, encoded."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, len(mode)), dtype=np.uint8)
    image = Image.fromarray(values.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return stream.getvalue()


@cache
def png_bomb(side: int = 13_000) -> bytes:
    """A black PNG of side x side pixels in a few kB."""
    rows = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    sealed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(sealed)


def _first_then(status: int, headers: dict[str, str]) -> Callable[[Any, FaultServer], None]:
    def fault(handler: Any, server: FaultServer) -> None:
        if server.hits[handler.path] == 1:
            handler.reply(status, headers=headers)
        else:
            handler.reply(200, picture(7))

    return fault


def _status(handler: Any, _: FaultServer) -> None:
    handler.reply(int(handler.path.split("/")[2]))


def _silent(_: Any, server: FaultServer) -> None:
    server.closing.wait()


def _query(handler: Any, name: str, default: str = "") -> str:
    return parse_qs(urlsplit(handler.path).query).get(name, [default])[0]


def _drip(handler: Any, server: FaultServer) -> None:
    """A byte every 0.05 s, or `?every=` s."""
    every_s = float(_query(handler, "every", "0.05"))
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not server.closing.wait(every_s):
        handler.wfile.write(b"x")


def _endless(handler: Any, server: FaultServer) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not server.closing.is_set():
        handler.wfile.write(b"x" * 65536)


def _says_huge(handler: Any, _: FaultServer) -> None:
    handler.reply(200, b"x", {"Content-Length": "1000000000"})
    handler.close_connection = True


def _cut(handler: Any, _: FaultServer) -> None:
    body = picture(3)
    handler.reply(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
    handler.close_connection = True


def _redirect(handler: Any, _: FaultServer) -> None:
    handler.reply(302, headers={"Location": parse_qs(urlsplit(handler.path).query)["to"][0]})


def _loop(handler: Any, _: FaultServer) -> None:
    handler.reply(302, headers={"Location": "/loop/on"})


def _zipped(handler: Any, _: FaultServer) -> None:
    handler.reply(200, gzip.compress(picture(5)), {"Content-Encoding": "gzip"})


def _bomb(handler: Any, _: FaultServer) -> None:
    handler.reply(200, gzip.compress(bytes(20_000_000)), {"Content-Encoding": "gzip"})


def _false_gzip(handler: Any, _: FaultServer) -> None:
    handler.reply(200, b"this is not gzip at all", {"Content-Encoding": "gzip"})


def _robots(handler: Any, _: FaultServer) -> None:
    tag = parse_qs(urlsplit(handler.path).query)["tag"][0]
    handler.reply(200, picture(5), {"X-Robots-Tag": tag})


def _reset(handler: Any, _: FaultServer) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _hang_up(handler: Any, _: FaultServer) -> None:
    handler.close_connection = True


def _long_header(handler: Any, _: FaultServer) -> None:
    handler.reply(200, picture(5), {"X-Long": "x" * 100_000})


def _garbage(handler: Any, _: FaultServer) -> None:
    handler.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
    handler.close_connection = True


def _later(handler: Any, _: FaultServer) -> None:
    handler.reply(429, headers={"Retry-After": parse_qs(urlsplit(handler.path).query)["s"][0]})


def _raw(handler: Any, head: str, body: bytes = b"") -> None:
    """An answer byte by byte as it is written here; then the connection is closed."""
    handler.wfile.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    handler.close_connection = True


def _flood(piece: Callable[[int], bytes]) -> Callable[[Any, FaultServer], None]:
    def fault(handler: Any, server: FaultServer) -> None:
        handler.connection.settimeout(5)
        handler.close_connection = True
        for number in itertools.count():
            if server.closing.is_set():
                return
            handler.connection.sendall(piece(number))
            with server.lock:
                server.flooded += len(piece(number))

    return fault


def _start(start: bytes, then: bytes) -> Callable[[int], bytes]:
    return lambda number: start if number == 0 else then


OK = b"HTTP/1.1 200 OK\r\n"
LINES = b"".join(b"X-%d: y\r\n" % n for n in range(1000))
TRAILERS = OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
CHUNK = OK + b"Transfer-Encoding: chunked\r\n\r\n1;"


def _beyond(handler: Any, _: FaultServer) -> None:
    """More bytes than the declared ones, in the same packet."""
    body = picture(5)
    _raw(handler, f"HTTP/1.1 200 OK\nContent-Length: {len(body)}", body + b"<!-- more -->" * 100)


def _chunked(handler: Any, _: FaultServer) -> None:
    """A picture in chunks; `?beyond=` follows after the last one."""
    body = picture(5)
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in [*pieces, b""])
    _raw(
        handler,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
        framed + _query(handler, "beyond").encode(),
    )


def _broken_chunks(handler: Any, _: FaultServer) -> None:
    _raw(handler, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nabcde\r\nzz\r\nmore")


def _cut_chunks(handler: Any, _: FaultServer) -> None:
    _raw(handler, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"50\r\nabcde")


def _hints(handler: Any, _: FaultServer) -> None:
    """Two informational answers, then the picture."""
    head = "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\n"
    _raw(handler, f"{head}Content-Length: {len(picture(5))}", picture(5))


def _encoded(handler: Any, _: FaultServer) -> None:
    """A picture, packed as `?in=` says and said to be `?as=`; `?cut=1`: without its last bytes."""
    body, packing = picture(5), _query(handler, "in")
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(body),
        "members": gzip.compress(body[:500]) + gzip.compress(body[500:]),
        "padded": gzip.compress(body) + bytes(512),
        "zlib": zlib.compress(body),
        "raw": raw.compress(body) + raw.flush(),
        "empty_members": gzip.compress(b"") * 1000,
    }.get(packing, body)
    packed = packed[:-20] if _query(handler, "cut") else packed
    handler.reply(200, packed, {"Content-Encoding": _query(handler, "as", "gzip")})


def _is(content_type: str, body: Callable[[], bytes]) -> Callable[[Any, FaultServer], None]:
    return lambda handler, _: handler.reply(200, body(), {"Content-Type": content_type})


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
HTML = b"<!DOCTYPE html><html><body><h1>Not here any more</h1></body></html>"

FAULTS: dict[str, Callable[[Any, FaultServer], None]] = {
    "/status": _status,
    "/flaky": _first_then(500, {}),
    "/busy": _first_then(429, {"Retry-After": "1"}),
    "/later": _later,
    "/silent": _silent,
    "/drip": _drip,
    "/endless": _endless,
    "/says_huge": _says_huge,
    "/cut": _cut,
    "/redirect": _redirect,
    "/loop": _loop,
    "/zipped": _zipped,
    "/bomb": _bomb,
    "/false_gzip": _false_gzip,
    "/robots": _robots,
    "/reset": _reset,
    "/hang_up": _hang_up,
    "/long_header": _long_header,
    "/garbage": _garbage,
    "/beyond": _beyond,
    "/chunked": _chunked,
    "/broken_chunks": _broken_chunks,
    "/cut_chunks": _cut_chunks,
    "/hints": _hints,
    "/encoded": _encoded,
    "/many_headers": _flood(_start(OK, LINES)),
    "/endless_header": _flood(_start(OK + b"X-Long: ", b"y" * 65536)),
    "/endless_status": _flood(_start(b"HTTP/1.1 200 ", b"y" * 65536)),
    "/endless_hints": _flood(lambda _: b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 500),
    "/endless_trailers": _flood(_start(TRAILERS, LINES)),
    "/endless_extension": _flood(_start(CHUNK, b"y" * 65536)),
    "/endless_answers": _flood(lambda _: (OK + b"Content-Length: 0\r\n\r\n") * 500),
    "/html": _is("image/jpeg", lambda: HTML),
    "/svg": _is("image/svg+xml", lambda: SVG),
    "/zero": _is("image/jpeg", lambda: b""),
    "/png_bomb": _is("image/png", png_bomb),
}
