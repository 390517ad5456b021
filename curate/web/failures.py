"""Failures: why a URL has no body, in short texts that are the same each time."""

from __future__ import annotations

import email.utils
import errno
import socket
import time
from typing import TYPE_CHECKING

from curate.web.egress import Refused

if TYPE_CHECKING:
    from aiohttp import ClientResponse

TRY_AGAIN = frozenset({408, 425, 429, *range(500, 600)})
PAUSE = frozenset({429, 503})  # with a Retry-After: the whole host wants to be left alone
BROKEN = {  # what the socket says -> what we say
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ECONNABORTED: "connection reset",
    errno.ENETUNREACH: "network unreachable",
    errno.EHOSTUNREACH: "host unreachable",
}
SHORT = "body shorter than declared"
UNREADABLE = "body is not in its declared encoding"


class Failure(Exception):  # noqa: N818 - an outcome
    """Why an attempt failed.

    again: could another one do better. wait_s: what the server asks for before that.
    gone: nothing answers there (a time-out, no connection, no lookup).
    asked: False where the attempt ended before anybody was asked. pause: wait_s is for all URLs of
    the host.
    """

    def __init__(
        self,
        text: str,
        *,
        again: bool = False,
        wait_s: float = 0,
        gone: bool = False,
        asked: bool = True,
        pause: bool = False,
    ) -> None:
        super().__init__(text)
        self.again, self.wait_s, self.gone, self.asked = again, wait_s, gone, asked
        self.pause = pause


def http_error(reply: ClientResponse) -> Failure:
    """As urllib says it, which img2dataset's users know; the server's words are cut to 60."""
    reason = "".join(c for c in reply.reason or "" if c.isprintable())[:60]
    again = reply.status in TRY_AGAIN
    wait_s = retry_after_s(reply.headers.get("Retry-After", ""))
    text = f"HTTP Error {reply.status}: {reason}"
    return Failure(text, again=again, wait_s=wait_s, pause=wait_s > 0 and reply.status in PAUSE)


def retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for (a number or a date); 0 where it says nothing."""
    if value.isdecimal() and value.isascii():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return 0.0


def explained(error: Exception) -> Failure:
    """What aiohttp, the resolver or the socket raised, as a Failure."""
    import aiohttp
    from aiohttp.http_exceptions import HttpProcessingError

    from curate.web.session import HeadersTooLarge

    if isinstance(error, Failure):
        return error
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(SHORT, again=True)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Failure("connection reset", again=True)
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientSSLError):
        return _unconnected(getattr(error, "os_error", error))
    match error:
        case HeadersTooLarge():
            text = str(error)
        case aiohttp.ClientConnectorCertificateError():
            text = "certificate is not trusted"
        case aiohttp.ClientSSLError():
            text = "TLS handshake failed"
        case ValueError():
            text = "not a URL"
        case aiohttp.ClientError() | HttpProcessingError():
            text = "malformed answer"
        case _:
            text = f"client failed: {type(error).__name__}"
    return Failure(text)


def _unconnected(error: OSError) -> Failure:
    if isinstance(error, Refused):
        return Failure(str(error))
    if isinstance(error, TimeoutError):
        return Failure("timed out", again=True, gone=True)
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return Failure("host lookup failed", again=True, gone=True)
        return Failure("host not found")  # remembered by names.py: no need to give it up
    text = BROKEN.get(error.errno or 0, "connection failed")
    return Failure(text, again=True, gone=text != "connection reset")
