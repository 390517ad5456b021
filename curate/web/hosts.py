"""Hosts: how a worker's URLs line up for their hosts, and which hosts are given up."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

FORGET_S = 60.0  # a host that was given up is tried with one URL after so long
MOST_HOSTS = 10_000  # with failures, remembered; the least recently failed one goes first


class Lines:
    """The few URLs of a worker that may ask for their host's turn now; the others queue here.

    Not more than `per_host` of one host, nor `in_all`: turns that are granted to URLs for which
    there is no open request yet would be kept from other workers.
    """

    def __init__(self, per_host: int, in_all: int) -> None:
        self.per_host = per_host
        self._all = asyncio.Semaphore(in_all)
        self._lines: dict[str, tuple[asyncio.Semaphore, int]] = {}  # and how many use it

    @asynccontextmanager
    async def of(self, host: str) -> AsyncIterator[None]:
        line, users = self._lines.get(host) or (asyncio.Semaphore(self.per_host), 0)
        self._lines[host] = (line, users + 1)
        try:
            async with line, self._all:
                yield
        finally:
            line, users = self._lines.pop(host)
            if users > 1:
                self._lines[host] = (line, users - 1)


@dataclass
class _Trouble:
    in_a_row: int = 0
    error: str = ""
    probe_at: float = float("inf")  # when one URL may try again


class GivenUp:
    """A circuit breaker per host:port, after `after` failures to reach it in a row; 0: never."""

    def __init__(self, after: int) -> None:
        self.after = after
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()

    def error(self, host: str, *, asking: bool = False) -> str | None:
        """Why not to ask this host now. asking: who is told None asks at once, as the probe."""
        trouble = self._troubles.get(host)
        if trouble is None or trouble.in_a_row < self.after:
            return None
        if time.monotonic() >= trouble.probe_at:
            if asking:
                trouble.probe_at = time.monotonic() + FORGET_S
            return None
        return f"host gave up: {trouble.error}"

    def failed(self, host: str, error: str) -> None:
        """Nothing answered there."""
        if not self.after:
            return
        trouble = self._troubles.setdefault(host, _Trouble())
        self._troubles.move_to_end(host)
        trouble.in_a_row, trouble.error = trouble.in_a_row + 1, error
        trouble.probe_at = time.monotonic() + FORGET_S
        if len(self._troubles) > MOST_HOSTS:
            self._troubles.popitem(last=False)

    def answered(self, host: str) -> None:
        self._troubles.pop(host, None)
