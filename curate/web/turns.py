"""Turns: a worker's side of the limits per host: wait for a permit, give it back, hand it on.

`async with turns.of(host)` begins at once where a permit is in hand. Else it queues, and one task
asks the dispatcher for all hosts together; that task runs only while there is something to say.
The permit of a request that ends goes to the next one that waits, as far as the dispatcher lets
this worker keep it, or stays in hand for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

from curate.web.limits import Grants
from curate.web.pauses import Paused, Pauses, Told
from curate.web.tally import News, Tally

log = logging.getLogger(__name__)
Ask = Callable[[str, dict[str, int], dict[str, int], News, Told], Awaitable[tuple[Grants, Told]]]
TTL_S = 10.0  # the dispatcher's: so long permits hold without a word to it
SPARE_S = 0.5  # a permit that nobody uses is kept so long
NEWS_S = 1.0  # between two messages with news
PACE = 20.0  # pauses between two exchanges, in durations of an exchange: 5 % of the time at most
GIVE_UP_S = 30.0  # without an answer: then those who wait are told
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0
LINGER_S = 2.0  # the task ends after so long with nothing to do


class Silent(RuntimeError):  # noqa: N818 - what it is
    """The dispatcher cannot be reached."""


class _Host:
    """Permits of one host: `open` in use, `spare` in hand; `keep` may be reused."""

    __slots__ = ("keep", "open", "since", "spare", "waiters")

    def __init__(self) -> None:
        self.open = self.spare = self.keep = 0
        self.since = 0.0  # when the last one became spare
        self.waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()


class _Turn:
    """What `Turns.of` gives: the block in which one request may be open."""

    __slots__ = ("_host", "_turns")

    def __init__(self, turns: Turns, host: str) -> None:
        self._turns, self._host = turns, host

    async def __aenter__(self) -> None:
        if not self._turns.begin(self._host):
            await self._turns.wait(self._host)

    async def __aexit__(self, *_: object) -> None:
        self._turns.end(self._host)


class Turns:
    """For one worker, used from one event loop; its tally may be used from any thread.

    ask: reaches `Dispatcher.exchange(worker, held, wanted, news, paused)`. worker: a name that no
    other worker has. every_s: between two exchanges, less where an exchange takes microseconds.
    """

    def __init__(self, ask: Ask, worker: str, every_s: float = 0.05, ttl_s: float = TTL_S) -> None:
        self.tally = Tally()
        self.pauses = Pauses()
        self._paused: Told = {}  # not told yet
        self._ask, self._worker, self._every_s, self._ttl_s = ask, worker, every_s, ttl_s
        self._hosts: dict[str, _Host] = {}
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._heard = -ttl_s  # when the last exchange that was answered began
        self._told = 0.0  # when news were sent
        self._failing: float | None = None  # since when nothing is answered
        self._retry_s = FIRST_RETRY_S
        self._exchanging = asyncio.Lock()

    def of(self, host: str) -> _Turn:
        """A block in which one request to `host` may be open.

        Entering raises Silent where the dispatcher cannot be reached for GIVE_UP_S, Paused where
        the host is paused while it waits: look at `pauses` before and after.
        """
        return _Turn(self, host)

    def pause(self, host: str, seconds: float, error: str) -> None:
        """The host wants to be left alone: by all workers, as soon as the dispatcher knows it."""
        self._paused[host] = (seconds, error)
        self._leave_alone({host: (seconds, error)})
        self._go_on()

    def begin(self, host: str) -> bool:
        """Take a spare permit, if there is one. Then `end` has to follow."""
        state = self._hosts.get(host)
        if state is None or not state.spare or state.waiters or not self._sure():
            return False
        state.spare -= 1
        state.open += 1
        return True

    async def wait(self, host: str) -> None:
        """Wait for a permit of `host`, first come first served. Then `end` has to follow."""
        state = self._hosts.setdefault(host, _Host())
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        state.waiters[waiter] = None
        self._waiting += 1
        self._go_on()
        try:
            await waiter
        except BaseException:
            if state.waiters.pop(waiter, self) is None:  # it is still in the queue
                self._waiting -= 1
            elif not waiter.cancelled() and waiter.exception() is None:
                self._give_on(state)
            raise

    def end(self, host: str) -> None:
        """The request is over: its permit goes to the next one, or stays in hand for a moment."""
        state = self._hosts[host]
        state.open -= 1
        if state.open + state.spare < state.keep and self._sure():
            state.spare += 1
            self._hand_out(state)
        else:
            self._go_on()  # another worker may wait for it

    def _give_on(self, state: _Host) -> None:
        """A permit came as its waiter went: no request was made with it, so the next one has it."""
        state.open -= 1
        state.spare += 1
        self._hand_out(state)
        self._go_on()

    def _sure(self) -> bool:
        """Whether the permits are still ours: the dispatcher forgets workers that are silent."""
        return time.monotonic() - self._heard < self._ttl_s

    def _hand_out(self, state: _Host) -> None:
        while state.spare and state.waiters:
            waiter, _ = state.waiters.popitem(last=False)
            self._waiting -= 1
            if not waiter.done():
                state.spare -= 1
                state.open += 1
                waiter.set_result(None)
        state.spare = max(0, min(state.spare, state.keep - state.open))
        state.since = time.monotonic()

    def _go_on(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="turns")
        self._wake.set()

    async def flush(self) -> None:
        """Send the news now, and with them what is held and wanted."""
        await self._exchange(flush=True)

    async def close(self) -> None:
        """Give back what is not in use and end. Nobody may wait any more."""
        for state in self._hosts.values():
            state.spare = 0
        await self.flush()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Exchange when something changes, every `every_s` while somebody waits, else now and then.

        Ends where there was nothing to say for LINGER_S.
        """
        busy = time.monotonic()
        while self._hosts or time.monotonic() - busy < LINGER_S:
            self._wake.clear()
            began = time.monotonic()
            retry_s = await self._exchange()
            took = time.monotonic() - began
            await asyncio.sleep(retry_s or min(self._every_s, PACE * took))
            if self._hosts or (self.tally.rows and self._failing is None):
                busy = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._silence_s()):
                    await self._wake.wait()

    def _silence_s(self) -> float:
        """Seconds until the next exchange if nothing happens."""
        if self._waiting:
            return self._every_s
        if any(state.spare for state in self._hosts.values()):
            return SPARE_S
        return min(NEWS_S, self._ttl_s / 3)

    async def _exchange(self, flush: bool = False) -> float:
        """One call; 0, or the seconds until it should be tried again. One at a time: in order."""
        async with self._exchanging:
            began = time.monotonic()
            held, wanted = self._state(began)
            paused, self._paused = self._paused, {}
            news = self.tally.take() if flush or began - self._told >= NEWS_S else {}
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    answer = await self._ask(self._worker, held, wanted, news, paused)
            except Exception as error:  # whatever the way to the dispatcher raises
                self.tally.add(news)
                self._paused = paused | self._paused
                return self._failed(error, began)
            grants, known = answer
            self._heard, self._failing, self._retry_s = began, None, FIRST_RETRY_S
            self._told = began if news else self._told
            self._leave_alone(known)
            if self._sure():  # else the dispatcher has counted this worker as dead meanwhile
                self._take(grants)
            return 0.0

    def _state(self, now: float) -> tuple[dict[str, int], dict[str, int]]:
        """Held and wanted per host. Permits that were not used for a while are given up."""
        held, wanted = {}, {}
        for host, state in list(self._hosts.items()):
            if state.spare and now - state.since > SPARE_S:
                state.spare = 0
            if state.open or state.spare:
                held[host] = state.open + state.spare
            elif not state.waiters:
                del self._hosts[host]
            if state.waiters:
                wanted[host] = len(state.waiters)
        return held, wanted

    def _take(self, grants: Grants) -> None:
        for host, (granted, keep) in grants.items():
            state = self._hosts[host]
            state.keep = keep
            state.spare += granted
            self._hand_out(state)

    def _leave_alone(self, told: Told) -> None:
        self.pauses.add(told)
        for host, pause in told.items():
            if state := self._hosts.get(host):
                self._tell(state, partial(Paused, *pause))

    def _failed(self, error: Exception, began: float) -> float:
        """Wait twice as long each time; after GIVE_UP_S tell those who wait."""
        if self._failing is None:
            self._failing = began
            log.warning("the limits per host cannot be reached: %r", error)
        if time.monotonic() - self._failing >= GIVE_UP_S:
            problem = f"no answer about the limits per host for {GIVE_UP_S:.0f} s: {error!r}"
            for state in self._hosts.values():
                self._tell(state, partial(Silent, problem))
        retry_s = self._retry_s
        self._retry_s = min(2 * retry_s, LAST_RETRY_S)
        return retry_s

    def _tell(self, state: _Host, error: Callable[[], Exception]) -> None:
        """Who waits ends with an error of his own."""
        while state.waiters:
            waiter, _ = state.waiters.popitem(last=False)
            self._waiting -= 1
            if not waiter.done():
                waiter.set_exception(error())
