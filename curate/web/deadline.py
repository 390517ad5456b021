"""Deadline: the time that a URL may take, which runs only while something is asked of a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Deadline:
    """`seconds` for all attempts and redirects of a URL.

    Runs inside `async with deadline:`, which raises TimeoutError at its end; stands still elsewhere
    (in the queue of a host) and in `paused()` (no room in memory): that is not the server's fault.
    since: when it began to run, of time.monotonic(); None while it stands still.
    """

    def __init__(self, seconds: float) -> None:
        self.given_s = self.left_s = seconds
        self.since: float | None = None
        self._timeout = asyncio.timeout(None)

    @property
    def spent_s(self) -> float:
        return self.given_s - self.left_s

    def spend(self, seconds: float) -> None:
        """Count a wait between two attempts."""
        self.left_s -= seconds

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(self.left_s)
        await self._timeout.__aenter__()
        self.since = time.monotonic()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        await self._timeout.__aexit__(kind, error, traceback)

    def _stop(self) -> None:
        if self.since is not None:
            self.left_s -= time.monotonic() - self.since
            self.since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside `async with deadline:`; a block in which it stands still."""
        self._stop()
        self._timeout.reschedule(None)
        try:
            yield
        finally:
            self.since = time.monotonic()
            if not self._timeout.expired():
                self._timeout.reschedule(asyncio.get_running_loop().time() + self.left_s)
