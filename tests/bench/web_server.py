"""A loopback web of many hosts in a process of its own, so cheap that it never is the bottleneck.

Hosts are addresses of 127.0.0.0/8. An answer is built once and sent with one call; per host it
comes after a wait, or never. Every host has a robots.txt that lets images be had.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SEND_BUFFER = 4 << 20  # bytes: a photo leaves with one call
ROBOTS = b"User-agent: *\nDisallow: /admin/\n"
REASONS = {
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    410: "Gone",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Page:
    """What every host answers on one path. body: bytes, or the file that has them."""

    body: bytes | Path = b""
    status: int = 200
    content_type: str = "image/jpeg"
    reset: bool = False  # the connection is broken instead
    cut: bool = False  # half of the body, then the connection ends


@dataclass(frozen=True)
class Host:
    """An address; each of its answers, robots.txt too, comes after `wait_s`, or never."""

    address: str
    wait_s: float = 0.0
    silent: bool = False


@dataclass(frozen=True)
class Counts:
    """What was asked since the last reset. first_s, last_s: time.monotonic() of the requests."""

    requests: int
    robots: int
    sent_mb: float
    cpu_s: float
    first_s: float
    last_s: float


class WebServer:
    """A running server, seen from the process that started it."""

    def __init__(self, port: int, pipe: Connection, hits: Any, process: Any) -> None:
        self.port, self._pipe, self._hits, self.process = port, pipe, hits, process

    def url(self, host: Host | str, path: str) -> str:
        address = host if isinstance(host, str) else host.address
        return f"http://{address}:{self.port}{path}"

    def hits(self) -> int:
        """Requests answered or left unanswered so far, robots.txt aside; costs nothing."""
        return int(self._hits.value)

    def counts(self) -> Counts:
        self._pipe.send("counts")
        return Counts(*self._pipe.recv())

    def reset(self) -> None:
        """Count from zero."""
        self._pipe.send("reset")
        self._pipe.recv()


@contextmanager
def web_server(pages: Mapping[str, Page], hosts: Sequence[Host]) -> Iterator[WebServer]:
    """Serve `pages` (by path, such as /1.jpg) on every host for the time of the block."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    hits = context.RawValue("Q", 0)
    process = context.Process(target=_serve, args=(dict(pages), list(hosts), its, hits))
    process.start()
    its.close()
    try:
        yield WebServer(ours.recv(), ours, hits, process)
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(pages: dict[str, Page], hosts: list[Host], pipe: Connection, hits: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    site = _Site(pages, hosts, hits)
    asyncio.run(site.run(pipe))


class _Site:
    def __init__(self, pages: dict[str, Page], hosts: list[Host], hits: Any) -> None:
        self.hosts = {host.address: host for host in hosts}
        built: dict[Page, bytes] = {}
        for page in pages.values():
            if page not in built:
                built[page] = _wire(page)
        self.pages = {path.encode(): (page, built[page]) for path, page in pages.items()}
        self.robots = Page(ROBOTS, content_type="text/plain")
        self.robots_wire = _wire(self.robots)
        self.missing = Page(status=404, content_type="text/html")
        self.missing_wire = _wire(self.missing)
        self.hits = hits
        self.reset()

    def reset(self) -> None:
        self.requests = self.robots_asked = self.sent = 0
        self.first = self.last = 0.0
        self.cpu = time.process_time()

    async def run(self, pipe: Connection) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        listeners = _listeners(list(self.hosts))
        for listener in listeners:
            await loop.create_server(lambda: _Asked(self), sock=listener, backlog=1024)
        loop.add_reader(pipe.fileno(), self._told, pipe, ended)
        pipe.send(listeners[0].getsockname()[1])
        await ended.wait()
        os._exit(0)  # connections that were left unanswered have nothing to say

    def _told(self, pipe: Connection, ended: asyncio.Event) -> None:
        try:
            word = pipe.recv()
        except EOFError:
            ended.set()
            return
        if word == "reset":
            self.reset()
        cpu = time.process_time() - self.cpu
        pipe.send((self.requests, self.robots_asked, self.sent / 1e6, cpu, self.first, self.last))

    def find(self, path: bytes) -> tuple[Page, bytes]:
        """The answer to a path, and one more in the counts."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        if path == b"/robots.txt":
            self.robots_asked += 1
            return self.robots, self.robots_wire
        self.requests += 1
        self.hits.value += 1
        return self.pages.get(path, (self.missing, self.missing_wire))


def _wire(page: Page) -> bytes:
    body = page.body.read_bytes() if isinstance(page.body, Path) else page.body
    head = (
        f"HTTP/1.1 {page.status} {REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + (body[: len(body) // 2] if page.cut else body)


def _listeners(addresses: list[str]) -> list[socket.socket]:
    """One listening socket per address, all on the same port."""
    port, found = 0, []
    for address in addresses:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        port = listener.getsockname()[1]
        found.append(listener)
    return found


class _Asked(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, site: _Site) -> None:
        self.site, self.received = site, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.host = self.site.hosts[transport.get_extra_info("sockname")[0]]

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head, self.received = self.received[:end], self.received[end + 4 :]
            self._asked(head)

    def _asked(self, head: bytes) -> None:
        page, wire = self.site.find(head.split(b" ", 2)[1])
        if self.host.silent:
            return
        last = page.cut or b"connection: close" in head.lower()
        if self.host.wait_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self.host.wait_s, self._answer, page, wire, last)
        else:
            self._answer(page, wire, last)

    def _answer(self, page: Page, wire: bytes, last: bool) -> None:
        if self.transport.is_closing():
            return
        if page.reset:
            opened = self.transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self.site.sent += len(wire)
        self.transport.write(wire)
        if last:
            self.transport.close()
