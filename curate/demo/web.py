"""A small bad web on loopback: a pool's files, some of them dead, flaky, lying or cut short.

`web.json` in the pool's folder maps each path to its file and to how it answers: ok | dead_404 |
flaky_500 | lying_html | truncated | forbidden_redirect. HTTP/1.1 with keep-alive.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

FORBIDDEN_HOST = "127.0.0.2"  # where the forbidden redirects point; nobody may ever come there
REASONS = {
    200: "OK",
    302: "Found",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}
TYPES = {".png": "image/png", ".jpeg": "image/jpeg", ".webp": "image/webp"}
LIE = b"<!doctype html><title>Not here</title><p>This picture has moved.</p>"
MAX_HEAD = 65_536  # bytes of a request

Answer = Callable[[str, str], tuple[bytes, bool]]  # method, path -> the whole answer, stay open


class Web:
    """The running server: `url`, `port`, `requests` by path, hits at the forbidden address.

    `watches_forbidden` is False where the system has no such second loopback address (macOS).
    """

    def __init__(self, folder: Path, host: str) -> None:
        plan = folder / "web.json"
        if not plan.is_file():
            raise ValueError(
                f"{plan}: no plan of a web; make_pool writes it, or name a pool's folder"
            )
        self.host = host
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.forbidden_hits = 0
        self.watches_forbidden = False
        self._files = folder / "files"
        self._plan: dict[str, Mapping[str, str]] = json.loads(plan.read_text(encoding="utf-8"))

    @property
    def url(self) -> str:
        """Such as http://127.0.0.1:8000, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def answer(self, method: str, path: str) -> tuple[bytes, bool]:
        """The whole answer, and whether the connection stays open after it."""
        self.requests[path] += 1
        if method not in ("GET", "HEAD"):
            return _message(405, b"GET only"), False
        page = self._plan.get(path, {"how": "dead_404", "file": ""})
        content, keep = self._page(page["how"], page["file"], self.requests[path], path)
        return (
            content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else content
        ), keep

    def forbidden(self, _method: str, _path: str) -> tuple[bytes, bool]:
        """What the second address answers: a well-formed page, and the visit is counted."""
        self.forbidden_hits += 1
        return _message(200, b"internal"), False

    def _page(self, how: str, file: str, visit: int, path: str) -> tuple[bytes, bool]:
        if how == "dead_404":
            return _message(404, b"no such picture"), True
        if how == "forbidden_redirect":
            return _message(302, b"", location=f"http://{FORBIDDEN_HOST}:{self.port}{path}"), True
        if how == "lying_html":
            return _message(200, LIE, kind="image/jpeg"), True
        if how == "flaky_500" and visit == 1:
            return _message(500, b"try again"), True
        content = (self._files / file).read_bytes()
        whole = _message(200, content, kind=TYPES[Path(file).suffix])
        return (whole[: -len(content) // 2], False) if how == "truncated" else (whole, True)


class _Connection(asyncio.Protocol):
    """One client: reads heads of requests, writes the answers in their order."""

    def __init__(self, answer: Answer, open_ones: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._open_ones = open_ones
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open_ones.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            method, _, rest = head.decode("latin-1").partition(" ")
            content, keep = self._answer(method, rest.partition(" ")[0].partition("?")[0])
            self._transport.write(content)
            if not keep or b"\nconnection: close" in head.lower():
                self._transport.close()
                return
        if len(self._head) > MAX_HEAD:
            self._transport.close()


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[Web]:
    """Serve a pool's folder from a thread until the block ends; port 0 takes a free one.

    Raises ValueError where the folder holds no pool, OSError where the port is taken.
    """
    web = Web(folder, host)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="demo-web", daemon=True)
    thread.start()
    close: Callable[[], None] = _nothing
    try:
        close = asyncio.run_coroutine_threadsafe(_listen(web, port), loop).result()
        yield web
    finally:
        loop.call_soon_threadsafe(close)
        loop.call_soon_threadsafe(lambda: loop.call_soon(loop.stop))  # after the sockets are closed
        thread.join()
        loop.close()


def _nothing() -> None:
    """What there is to close where nothing could be opened."""


async def _listen(web: Web, port: int) -> Callable[[], None]:
    """Open both addresses; returns what closes them and every connection."""
    loop = asyncio.get_running_loop()
    open_ones: set[asyncio.Transport] = set()
    servers = [await loop.create_server(lambda: _Connection(web.answer, open_ones), web.host, port)]
    web.port = servers[0].sockets[0].getsockname()[1]
    with suppress(OSError):  # a system with one loopback address
        servers.append(
            await loop.create_server(
                lambda: _Connection(web.forbidden, open_ones), FORBIDDEN_HOST, web.port
            )
        )
    web.watches_forbidden = len(servers) > 1

    def close() -> None:
        for server in servers:
            server.close()
        for transport in tuple(open_ones):
            transport.abort()

    return close


def _message(
    status: int, body: bytes, kind: str = "text/plain", location: str | None = None
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
    ]
    if location is not None:
        lines.append(f"Location: {location}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
