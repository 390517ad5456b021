"""Fetch: URLs -> bodies or errors, concurrently, each within its limits, none stopping the others.

A URL's way: wait for a slot of its host, for room in memory, for one of the open requests; then
attempts, each with a total deadline, redirects followed by hand and checked like the first address
(egress.py). What can pass is tried again after a jittered, doubling wait, or the one that the
server asked for; nothing is held while waiting.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import random
import re
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from curate.egress import Egress, Refused
from schemas.configs import DownloadConfig

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

ROBOTS = "Use of image disallowed by X-Robots-Tag directive"  # img2dataset's words
REDIRECTS = frozenset({301, 302, 303, 307, 308})
GOOD = range(200, 300)
TRY_AGAIN = frozenset({408, 425, 429, *range(500, 600)})
BROKEN = {  # what the socket says -> what we say
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
}
DNS_TTL_S = 300
KEEPALIVE_S = 1.0  # idle connections to thousands of hosts would use up the file descriptors
_EXACT = re.compile(r"[!-~]+")  # a URL that can be sent as it is written
_HOST = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass(frozen=True)
class Fetched:
    """What became of one URL. `body` (Content-Encoding undone) or `error` is None, never both.

    status: the last answer's, None where there was none. seconds: from the first attempt's begin.
    """

    body: bytes | None
    error: str | None
    status: int | None
    attempts: int
    seconds: float
    final_url: str


OnDone = Callable[[int, Fetched], Awaitable[None]]


class _Failure(Exception):  # noqa: N818 - an outcome
    """Why an attempt failed; again: could another do better; wait_s: what the server asks for."""

    def __init__(
        self, text: str, *, again: bool = False, status: int | None = None, wait_s: float = 0
    ) -> None:
        super().__init__(text)
        self.again, self.status, self.wait_s = again, status, wait_s


async def fetch_all(urls: Sequence[str], config: DownloadConfig, on_done: OnDone) -> None:
    """Fetch every URL and await `on_done(index, fetched)` for each, in order of arrival.

    At most 2 x `config.concurrency` bodies are in memory, those that `on_done` works on included;
    a slow `on_done` slows the fetching down. Beside that a few kB per URL: give it a part, not a
    pool. `per_host` counts the host that the list names, also while a redirect leads elsewhere.
    Raises what `on_done` raises, after cancelling the rest; what happens to a URL is in its
    `Fetched`. Raises ValueError for an entry of `allow_hosts` that can never match.
    """
    egress = Egress(config.allow_hosts, config.dns_concurrency)
    try:
        async with _session(config, egress) as session:
            fetcher = _Fetcher(config, egress, session)
            async with asyncio.TaskGroup() as tasks:
                for index, url in enumerate(urls):
                    tasks.create_task(fetcher.fetch(index, url, on_done))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await egress.close()


def _session(config: DownloadConfig, egress: Egress) -> ClientSession:
    import aiohttp

    resolver: Any = egress
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            resolver=resolver,
            ttl_dns_cache=DNS_TTL_S,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=egress.socket,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=config.timeout_s, sock_read=config.timeout_s
        ),
        headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        max_line_size=8190,
        max_field_size=8190,
    )


class _Fetcher:
    def __init__(self, config: DownloadConfig, egress: Egress, session: ClientSession) -> None:
        self.config, self.egress, self.session = config, egress, session
        self.open = asyncio.Semaphore(config.concurrency)
        self.room = asyncio.Semaphore(2 * config.concurrency)
        self.hosts: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(config.per_host)
        )
        self.robot = re.split(r"[/\s]", config.user_agent, maxsplit=1)[0].lower()
        self.directives = {d.strip().lower() for d in config.disallowed_header_directives}

    async def fetch(self, index: int, url: str, on_done: OnDone) -> None:
        began = 0.0
        for attempt in count(1):
            async with AsyncExitStack() as until_done:
                async with self.hosts[_host(url)]:
                    await until_done.enter_async_context(self.room)
                    async with self.open:
                        began = began or time.monotonic()
                        body, failure, status, final_url = await self._attempt(url)
                wait_s = self._wait_s(failure, attempt)
                if wait_s is None:
                    error = str(failure) if failure else None
                    seconds = time.monotonic() - began
                    await on_done(index, Fetched(body, error, status, attempt, seconds, final_url))
                    return
            del body
            await asyncio.sleep(wait_s)

    def _wait_s(self, failure: _Failure | None, attempt: int) -> float | None:
        """Seconds until the next attempt; None where there is none.

        A server that asks for more than the deadline is not asked again.
        """
        if failure is None or not failure.again or attempt > self.config.retries:
            return None
        if failure.wait_s > self.config.deadline_s:
            return None
        backoff = self.config.retry_wait_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return max(failure.wait_s, min(backoff, self.config.deadline_s))

    async def _attempt(self, url: str) -> tuple[bytes | None, _Failure | None, int | None, str]:
        from aiohttp import ClientError
        from aiohttp.http_exceptions import HttpProcessingError

        seen = [url]
        try:
            async with asyncio.timeout(self.config.deadline_s):
                body, status = await self._follow(seen)
            return body, None, status, seen[-1]
        except _Failure as failure:
            return None, failure, failure.status, seen[-1]
        except (ClientError, HttpProcessingError, OSError, ValueError) as error:
            return None, _explained(error), None, seen[-1]

    async def _follow(self, seen: list[str]) -> tuple[bytes, int]:
        target = _parsed(seen[0])
        for _ in range(self.config.max_redirects + 1):
            self._check(target)
            async with self.session.get(target, allow_redirects=False) as reply:
                location = reply.headers.get("Location") if reply.status in REDIRECTS else None
                if location is None:
                    return await self._body(reply), reply.status
                target = target.join(_parsed(location))
                seen.append(str(target))
        raise _Failure("too many redirects", status=reply.status)

    def _check(self, target: URL) -> None:
        if not target.scheme:
            raise _Failure("no scheme")
        if target.scheme not in ("http", "https"):
            raise _Failure(f"scheme {target.scheme[:20]} is not allowed")
        if not target.raw_host or target.port is None:
            raise _Failure("no host")
        if not _HOST.fullmatch(target.raw_host):
            raise _Failure("not a URL")
        self.egress.check_host(target.raw_host, target.port)

    async def _body(self, reply: ClientResponse) -> bytes:
        """Raises _Failure for an answer that is no body, or none that we may have."""
        if reply.status not in GOOD:
            raise _http_error(reply)
        if _disallows(reply.headers.getall("X-Robots-Tag", []), self.robot, self.directives):
            raise _Failure(ROBOTS, status=reply.status)
        limit = self.config.max_bytes
        too_large = _Failure(f"body larger than {limit} bytes", status=reply.status)
        if (reply.content_length or 0) > limit:
            raise too_large
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise too_large
        return bytes(body)


def _parsed(url: str) -> URL:
    from yarl import URL

    return URL(url, encoded=_EXACT.fullmatch(url) is not None)


def _host(url: str) -> str:
    try:
        return (_parsed(url).host or "").lower()
    except ValueError:
        return ""


def _http_error(reply: ClientResponse) -> _Failure:
    """As urllib says it, which img2dataset's users know; the server's words are cut to 60."""
    reason = "".join(c for c in reply.reason or "" if c.isprintable())[:60]
    again = reply.status in TRY_AGAIN
    wait_s = _retry_after_s(reply.headers.get("Retry-After", ""))
    text = f"HTTP Error {reply.status}: {reason}"
    return _Failure(text, again=again, status=reply.status, wait_s=wait_s)


def _retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for (a number or a date); 0 where it says nothing."""
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return 0.0


def _disallows(headers: Iterable[str], robot: str, directives: set[str]) -> bool:
    """Whether an X-Robots-Tag says one of the directives to all robots or to this one."""
    for value in headers:
        addressee = ""
        for item in value.lower().split(","):
            name, colon, rest = item.partition(":")
            addressee = name.strip() if colon else addressee
            if addressee in ("", robot) and (rest if colon else item).strip() in directives:
                return True
    return False


def _explained(error: Exception) -> _Failure:
    """A short, stable text for what aiohttp, the resolver or the socket raised."""
    import aiohttp
    from aiohttp.http_exceptions import ContentEncodingError

    if isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(error.__cause__, ContentEncodingError):
            return _Failure("body is not in its declared encoding")
        return _Failure("body shorter than declared", again=True)
    if isinstance(error, aiohttp.ClientSSLError):
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
        return _Failure("certificate is not trusted" if untrusted else "TLS handshake failed")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return _Failure("connection reset", again=True)
    if isinstance(error, OSError):
        return _unconnected(getattr(error, "os_error", error))
    return _Failure("not a URL" if isinstance(error, ValueError) else "malformed answer")


def _unconnected(error: OSError) -> _Failure:
    if isinstance(error, Refused):
        return _Failure(str(error))
    if isinstance(error, TimeoutError):
        return _Failure("timed out", again=True)
    if isinstance(error, socket.gaierror):
        again = error.errno == socket.EAI_AGAIN
        return _Failure("host lookup failed" if again else "host not found", again=again)
    return _Failure(BROKEN.get(error.errno or 0, "connection failed"), again=True)
