"""A real HTTP server on loopback with the web's faults, and a listener to stay clear of."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image


def picture(
    seed: int, width: int = 80, height: int = 60, kind: str = "JPEG", mode: str = "RGB"
) -> bytes:
    """A smooth random image, encoded."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, len(mode)), dtype=np.uint8)
    image = Image.fromarray(values.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return stream.getvalue()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # the default of 5 drops connections, which come again after a second


class FaultServer:
    """`files` maps a path to (content type, bytes); `faults` a path to what its handler does."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.hits: Counter[str] = Counter()
        self.user_agents: set[str] = set()
        self.request_headers: list[dict[str, str]] = []
        self.open = 0
        self.most_open = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), _handler(self))
        self.port = self.http.server_address[1]
        self.address = f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def image(self, path: str, seed: int = 0, kind: str = "JPEG", **size: Any) -> str:
        """Serve a picture; returns its URL."""
        self.files[path] = (f"image/{kind.lower()}", picture(seed, kind=kind, **size))
        return self.url(path)

    def serve(self, path: str, body: bytes, content_type: str = "image/jpeg") -> str:
        self.files[path] = (content_type, body)
        return self.url(path)


def _handler(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else 40 ms an answer

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with server.lock:
                server.hits[self.path] += 1
                server.open += 1
                server.most_open = max(server.most_open, server.open)
                server.user_agents.add(self.headers.get("User-Agent", ""))
                server.request_headers.append(dict(self.headers))
            try:
                self._answer()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with server.lock:
                    server.open -= 1

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            if path in server.files:
                return self.reply(
                    200, server.files[path][1], {"Content-Type": server.files[path][0]}
                )
            fault = FAULTS.get("/" + path.split("/")[1])
            return fault(self, server) if fault else self.reply(404)

        def reply(
            self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


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


def _drip(handler: Any, server: FaultServer) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not server.closing.wait(0.05):
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
}


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    """A running server; ends with the block."""
    server = FaultServer()
    thread = threading.Thread(
        target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class Forbidden:
    """A listener on 127.0.0.2 that tells whether anybody connected."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.2", 0))
        self.listener.setblocking(False)
        self.url = f"http://127.0.0.2:{self.listener.getsockname()[1]}/secret.jpg"

    def visits(self) -> int:
        """Connections since the last call."""
        seen = 0
        while True:
            try:
                self.listener.accept()[0].close()
            except BlockingIOError:
                return seen
            seen += 1


@contextmanager
def forbidden() -> Iterator[Forbidden]:
    """A listener on 127.0.0.2 for the time of the block."""
    listener = Forbidden()
    try:
        yield listener
    finally:
        listener.listener.close()
