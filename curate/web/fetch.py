"""Fetch: URLs -> bodies or errors, concurrently, each within its limits, none stopping the others.

A worker has one `Fetcher`: one thread with one event loop, one set of connections, one cache of
names and robots.txt for all of its parts. What happens to one URL is in visits.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from curate.web.egress import check_allow
from curate.web.politeness import user_agent
from schemas.configs import DownloadConfig

if TYPE_CHECKING:
    from curate.web.blocklist import Blocklist
    from curate.web.turns import Turns
    from curate.web.visits import Visit, Visits

STALLED = "stalled"
LOOKS_PER_STALL = 8  # how often the watchdog looks in `stall_s`
GRACE_S = 5.0  # for what was cancelled to end; then it is left behind

T = TypeVar("T")


@dataclass(frozen=True)
class Fetched:
    """What became of one URL. `body` (Content-Encoding undone) or `error` is None, never both.

    status: of the last attempt's last hop, None where that had no answer. attempts: 0 where its
    host was given up, or paused, before. seconds: of its deadline, so without the waiting for its
    host's turn. host: of the listed URL, lower case; "" where it has none.
    """

    body: bytes | None
    error: str | None
    status: int | None
    attempts: int
    seconds: float
    final_url: str
    host: str


OnDone = Callable[[int, Fetched], Awaitable[None]]


class Fetcher:
    """One worker's way to the web. Thread-safe; `close` it at the end.

    turns: who may ask which host now, over all workers; used on the fetcher's loop only and closed
    with it. Raises ValueError for an entry of `allow_hosts` that can never match.
    """

    def __init__(self, config: DownloadConfig, turns: Turns, blocklist: Blocklist) -> None:
        check_allow(config.allow_hosts)
        user_agent(config)
        self.config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        self._calls: set[asyncio.Task[Any]] = set()
        try:
            self._visits = self._run(_begin(config, turns, blocklist))
        except BaseException:
            self._stop()
            raise

    def fetch_all(self, urls: Sequence[str], on_done: OnDone) -> list[int]:
        """Fetch every URL and await `on_done(index, fetched)` for each, in order of arrival.

        Blocks the calling thread; `on_done` runs on the fetcher's loop. Calls from several threads
        share `concurrency` and `buffer_bytes`: a body counts until its `on_done` is over, so that a
        slow one slows the fetching down. A few kB per URL: give it a part, not a pool.
        Returns the indices whose `on_done` never ended: where for `stall_s` no URL of this call
        ended although one was at work all the time (a request, or `on_done`), those in `on_done`
        are cancelled and the others end with the error "stalled". Normally empty.
        Raises what `on_done` raises, after cancelling the rest of this call.
        """
        return self._run(self._call(urls, on_done))

    async def _call(self, urls: Sequence[str], on_done: OnDone) -> list[int]:
        task = asyncio.create_task(_Call(self._visits, on_done, self.config.stall_s).run(urls))
        self._calls.add(task)
        try:
            never_ended = await task
        finally:
            self._calls.discard(task)
        await self._visits.turns.flush()  # what was counted so far
        return never_ended

    def close(self) -> None:
        """End all calls and close all connections."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this Fetcher is closed: make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the caller was interrupted
            raise

    async def _end(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._visits.close()
        await asyncio.sleep(0)  # the transports close


async def _begin(config: DownloadConfig, turns: Turns, blocklist: Blocklist) -> Visits:
    from curate.web.visits import Visits

    return Visits(config, turns, blocklist)


class _Call:
    """One `fetch_all`: its URLs, each a task, and the watchdog over them."""

    def __init__(self, visits: Visits, on_done: OnDone, stall_s: float) -> None:
        self.visits, self.on_done, self.stall_s = visits, on_done, stall_s
        self.under_way: dict[int, Visit] = {}
        self.telling: dict[int, float] = {}  # those in `on_done`, and since when
        self.last_end = time.monotonic()

    async def run(self, urls: Sequence[str]) -> list[int]:
        for index, url in enumerate(urls):
            self.under_way[index] = self.visits.new(url)
        todo = {asyncio.create_task(self._one(index)) for index in self._in_breadth()}
        try:
            while todo and not self._stalled():
                done, todo = await asyncio.wait(
                    todo,
                    timeout=self.stall_s / LOOKS_PER_STALL,
                    return_when=asyncio.FIRST_EXCEPTION,
                )
                for task in done:
                    task.result()
        finally:
            never_ended = list(self.telling)
            await _cancelled(todo)
            for visit in self.under_way.values():  # of tasks that would not be cancelled, too
                visit.share.give_back()
        return sorted([*never_ended, *await self._tell_stalled(set(never_ended))])

    def _in_breadth(self) -> list[int]:
        """The first URL of every host, then the second of each, and so on: a host that does not
        answer is found out early, and one with many URLs begins early.
        """
        seen: Counter[str] = Counter()
        turns = []
        for index, visit in self.under_way.items():
            turns.append((seen[visit.host], index))
            seen[visit.host] += 1
        return [index for _, index in sorted(turns)]

    async def _one(self, index: int) -> None:
        visit = self.under_way[index]
        try:
            fetched = await self.visits.fetch(visit)
            await self._tell(index, fetched)
        finally:
            visit.share.give_back()
        del self.under_way[index]
        self.last_end = time.monotonic()

    async def _tell(self, index: int, fetched: Fetched) -> None:
        self.telling[index] = time.monotonic()
        try:
            await self.on_done(index, fetched)
        finally:
            del self.telling[index]

    def _stalled(self) -> bool:
        """Whether one was at work for `stall_s` and nothing ended in that time.

        At work is who asks a server or is in `on_done`; who waits for its host's turn, for room or
        between two attempts is not.
        """
        before = time.monotonic() - self.stall_s
        if self.last_end > before:
            return False
        asking = (visit.deadline.since for visit in self.under_way.values())
        return any(
            since is not None and since <= before for since in (*asking, *self.telling.values())
        )

    async def _tell_stalled(self, told: set[int]) -> list[int]:
        """End what is left with an error; returns those whose `on_done` does not end either."""
        left = {i: visit for i, visit in self.under_way.items() if i not in told}
        tasks = {
            asyncio.create_task(self._tell(i, visit.fetched(None, STALLED))): i
            for i, visit in left.items()
        }
        if not tasks:
            return []
        done, hanging = await asyncio.wait(
            tasks, timeout=self.stall_s, return_when=asyncio.FIRST_EXCEPTION
        )
        await _cancelled(hanging)
        for task in done:
            task.result()
        return [tasks[task] for task in hanging]


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel them and wait until they have ended; not for ever, if one does not."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE_S)
