"""Decoders: threads for codecs, which may never return.

Daemons, so that a codec that hangs cannot hold the process at its end, and replaceable, so that it
cannot hold the images behind it either.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
LOOKS = 8  # at a job within its limit


@dataclass
class _Job(Generic[T]):
    """began: when a thread took it, None before."""

    function: Callable[..., T]
    args: tuple[Any, ...]
    future: Future[T] = field(default_factory=Future)
    began: float | None = None


class Decoders:
    """`threads` daemons that take jobs in order; a job may take `limit_s` seconds."""

    def __init__(self, threads: int, limit_s: float) -> None:
        self.threads, self.limit_s = threads, limit_s
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._start()

    def _start(self) -> None:
        for number in range(self.threads):
            threading.Thread(
                target=_work, args=(self._jobs,), name=f"decode-{number}", daemon=True
            ).start()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)` in a thread.

        Raises what it raises, and TimeoutError where it does not return: then other threads go on
        with the jobs behind it.
        """
        job = _Job(function, args)
        self._jobs.put(job)
        waiting = asyncio.wrap_future(job.future)
        try:
            while not (await asyncio.wait([waiting], timeout=self.limit_s / LOOKS))[0]:
                if job.began is not None and time.monotonic() - job.began > self.limit_s:
                    self._replace()
                    raise TimeoutError(f"no end after {self.limit_s} s")
            return waiting.result()
        finally:
            job.future.cancel()  # where nobody waits any more it need not begin

    def _replace(self) -> None:
        """New threads for what waits and what comes; the old ones end with the job they are at, if
        that ends.
        """
        old, self._jobs = self._jobs, SimpleQueue()
        with suppress(Empty):
            while True:
                self._jobs.put(old.get_nowait())
        for _ in range(self.threads):
            old.put(None)
        self._start()

    def close(self) -> None:
        """Let the threads end with the jobs that are there."""
        for _ in range(self.threads):
            self._jobs.put(None)


def _work(jobs: SimpleQueue[_Job[Any] | None]) -> None:
    while job := jobs.get():
        if job.future.set_running_or_notify_cancel():
            job.began = time.monotonic()
            _do(job)
        del job  # an idle thread holds no image


def _do(job: _Job[Any]) -> None:
    try:
        job.future.set_result(job.function(*job.args))
    except BaseException as error:
        job.future.set_exception(error)
