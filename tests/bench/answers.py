"""Damaged HTTP answers, and a fetcher that gets them from a server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import threading
from collections.abc import Callable

import numpy as np

from curate.web.blocklist import Blocklist
from curate.web.dispatch import Dispatcher
from curate.web.fetch import Fetched, Fetcher
from curate.web.pauses import Pauses
from curate.web.turns import Turns
from schemas.configs import DownloadConfig
from tests.bench.mutations import mutated
from tests.fault_server import picture

BODY = picture(1)
CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (BODY[:99], BODY[99:], b""))
GIVEN = (  # no other host: a damaged one could be anybody's
    (b"200 OK", b"Content-Type: image/jpeg\r\nContent-Length: %d" % len(BODY), BODY),
    (b"200 OK", b"Transfer-Encoding: chunked", CHUNKED),
    (b"200 OK", b"Content-Encoding: gzip\r\nConnection: close", gzip.compress(BODY)),
    (b"200 OK", b"X-Robots-Tag: otherbot: noai, noindex\r\nSet-Cookie: a=b; Path=/", BODY),
    (b"302 Found", b"Location: /9\r\nContent-Length: 0", b""),
    (b"429 Too Many Requests", b"Retry-After: 1\r\nContent-Length: 4", b"wait"),
    (b"103 Early Hints", b"Link: </x>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nA: b", BODY),
    (b"206 Partial Content", b"Content-Range: bytes 0-1/9\r\nContent-Length: 2", b"ab"),
)


def answers(seed: int) -> Callable[[int], str]:
    """Case number -> what came of an answer that was damaged so."""
    port = _serve(seed)
    config = DownloadConfig(
        allow_hosts=(f"127.0.0.1:{port}",), deadline_s=0.5, timeout_s=0.5, retries=0,
        max_bytes=1 << 20, robots_txt=False, give_up_host_after=0,
    )  # fmt: skip
    desk = Dispatcher(config.per_host)

    async def ask(*exchange: object) -> object:
        return desk.exchange(*exchange[:4])  # without the pauses: each case is a host of its own

    turns = Turns(ask, "fuzz")
    fetcher = Fetcher(config, turns, Blocklist(()))

    def run(case: int) -> str:
        told: list[Fetched] = []
        turns.pauses = Pauses()

        async def keep(_: int, fetched: Fetched) -> None:
            told.append(fetched)

        stalled = fetcher.fetch_all([f"http://127.0.0.1:{port}/{case}"], keep)
        if stalled or len(told) != 1:
            return "lost"
        kind = re.match(r"HTTP Error|content encoding|scheme|address", told[0].error or "a body")
        return f"{kind[0]} ..." if kind else told[0].error or "a body"

    return run


def damaged(seed: int, case: int) -> bytes:
    """The bytes of an answer; half of the damages are in its head alone."""
    rng = np.random.default_rng((seed, case))
    status, headers, body = GIVEN[rng.integers(len(GIVEN))]
    head = b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n\r\n"
    if rng.random() < 0.5:
        return mutated(rng, [head]) + body
    return mutated(rng, [head + body])


def _serve(seed: int) -> int:
    """A thread that answers /N with case N and closes the connection; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            case = re.match(rb"GET /(\d{1,9})", request)
            writer.write(damaged(seed, int(case[1]) if case else 0))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(answer, sock=listener) as server:
            await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    return int(listener.getsockname()[1])
