"""Session: aiohttp's client as a download needs it: guarded, no cookies, headers bounded."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from curate.web.egress import Egress
from curate.web.politeness import user_agent
from schemas.configs import DownloadConfig

KEEPALIVE_S = 1.0  # idle connections to thousands of hosts would use up the file descriptors
READ_BYTES = 64 * 1024  # of a body in a connection's own buffer; reading stops at twice that
FRAMING = 8  # bytes on the wire per byte of a chunked body: more is a flood of extensions, trailers
BODILESS = frozenset({204, 304})
_HEADERS_END = re.compile(rb"\n\r?\n")
_OVERLAP = 2  # bytes of one read that can belong to an end that the next one completes


class HeadersTooLarge(aiohttp.ClientError):
    """An answer's status lines and headers are more than `max_header_bytes`."""


class BoundedHandler(ResponseHandler):
    """One connection: at most `most` bytes of headers per answer, and no byte after its body.

    aiohttp bounds a line and the number of lines, not their sum over an answer (informational
    answers and trailers included). Headers and body are fed to its parser apart, so that what a
    server sends beyond its Content-Length cannot spoil the answer before it.
    """

    def __init__(self, *args: Any, most: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most = most
        self._begin()

    def _begin(self) -> None:
        self.seen = 0  # bytes of headers; after them of the body as sent
        self.last = b""
        self.left: int | None = None  # bytes of the body to come, where that is known
        self.body: aiohttp.StreamReader | None = None  # once the headers were read

    def set_response_params(self, **params: Any) -> None:
        self._begin()
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called by the parser's driver with each answer whose headers are complete."""
        message, body = data
        if self.body is not None:  # an answer that nobody asked for
            return self.force_close()
        if message.code >= 200 or message.code == 101:  # noqa: PLR2004 - HTTP's own numbers
            self.body, self.seen = body, 0
            self.left = _length(message)
        return super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if not data:  # reading was resumed
            return super().data_received(data)
        while data and self.body is None and self.exception() is None:
            data = self._headers(data)
        if data and self.body is not None:
            self._rest(data)
        return None

    def _headers(self, data: bytes) -> bytes:
        """Feed the parser up to the end of these headers; returns what comes after it."""
        joined = self.last + data
        found = _HEADERS_END.search(joined)
        size = found.end() - len(self.last) if found else len(data)
        self.seen += size
        if self.seen > self.most:
            self._flood()
            return b""
        self.last = b"" if found else joined[-_OVERLAP:]
        super().data_received(data[:size])
        return data[size:]

    def _rest(self, data: bytes) -> None:
        if self.left is not None:
            if len(data) > self.left:
                self.force_close()
            data = data[: self.left]
            self.left -= len(data)
        elif self.body is not None:
            self.seen += len(data)
            if self.seen - len(data) > self.most + FRAMING * self.body.total_bytes:
                return self._flood()
        if data:
            super().data_received(data)
        self._tell_the_body()
        return None

    def _tell_the_body(self) -> None:
        """Of broken chunks aiohttp tells the connection only: who reads the body would wait on."""
        if self.body is None or self.body.is_eof() or self.body.exception() is not None:
            return
        if self.exception() is not None:
            self.body.set_exception(aiohttp.ClientError("broken chunks"))

    def _flood(self) -> None:
        error = HeadersTooLarge(f"headers larger than {self.most} bytes")
        self.set_exception(error)
        if self.body is not None:
            self.body.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


def _length(message: Any) -> int | None:
    """Bytes of the body that follow the headers; None where only the parser can tell."""
    if message.code in BODILESS:
        return 0
    declared = message.headers.get("Content-Length", "")
    known = declared.isascii() and declared.isdecimal() and not message.chunked
    return int(declared) if known else None


class _Connector(aiohttp.TCPConnector):
    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(BoundedHandler, loop=self._loop, most=most)


def new_session(config: DownloadConfig, egress: Egress) -> aiohttp.ClientSession:
    """A session of the running loop; all its connections go through `egress`."""
    most = config.max_header_bytes
    session = aiohttp.ClientSession(
        connector=_Connector(
            most,
            limit=0,
            resolver=egress,
            use_dns_cache=False,  # names.py has one
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=egress.socket,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=config.timeout_s, sock_read=config.timeout_s
        ),
        headers={"User-Agent": user_agent(config), "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BYTES,
        max_line_size=most,
        max_field_size=most,
        max_headers=most,
    )
    # else a request on a kept connection that breaks is sent twice, unseen by `retries`
    session._retry_connection = False
    return session
