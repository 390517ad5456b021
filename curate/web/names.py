"""Names: host names -> addresses, a few lookups at once, each answer remembered for a while."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

from curate.web.deadline import Deadline

TTL_S = 300
MOST_NAMES = 10_000  # remembered; the least recently used one goes first
MOST_ADDRESSES = 8  # of one name: each that is tried may cost a time-out

Addresses = list[tuple[int, str]]  # (address family, address as getaddrinfo writes it)
Answer = Addresses | socket.gaierror


@dataclass(frozen=True)
class _Lookup:
    begun: asyncio.Event  # a thread works on it
    answer: asyncio.Task[Answer]


class Names:
    """A cache of lookups; what does not exist is remembered too, a failing name server is not."""

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="dns")
        self._free = asyncio.Semaphore(at_once)
        self._known: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._running: dict[str, _Lookup] = {}

    async def find(self, host: str, deadline: Deadline | None = None) -> Addresses:
        """The addresses of a name. Concurrent calls for one name share a lookup.

        deadline: runs while a thread works on the lookup, not while others are looked up before.
        Raises socket.gaierror.
        """
        answer = self._remembered(host)
        if answer is None:
            lookup = self._running.get(host) or self._begin(host)
            await lookup.begun.wait()
            async with deadline or nullcontext():
                answer = await asyncio.shield(lookup.answer)
        if isinstance(answer, socket.gaierror):
            raise socket.gaierror(*answer.args)
        return answer

    def _remembered(self, host: str) -> Answer | None:
        until, answer = self._known.get(host, (0.0, None))
        if until < time.monotonic():
            self._known.pop(host, None)
            return None
        self._known.move_to_end(host)
        return answer

    def _begin(self, host: str) -> _Lookup:
        begun = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._look_up(host, begun))
        self._running[host] = lookup = _Lookup(begun, task)
        return lookup

    async def _look_up(self, host: str, begun: asyncio.Event) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with self._free:
                begun.set()
                answer = await loop.run_in_executor(self._threads, _asked, host)
            passing = isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN
            if not passing:
                self._known[host] = (time.monotonic() + TTL_S, answer)
                if len(self._known) > MOST_NAMES:
                    self._known.popitem(last=False)
            return answer
        finally:
            begun.set()
            del self._running[host]

    async def close(self) -> None:
        """Let go of the lookups that are under way."""
        tasks = [lookup.answer for lookup in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _asked(host: str) -> Answer:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except socket.gaierror as error:
        return error
    except (UnicodeError, OSError) as error:
        return socket.gaierror(socket.EAI_NONAME, str(error))
    addresses = dict.fromkeys((int(family), str(sockaddr[0])) for family, *_, sockaddr in found)
    return list(addresses)[:MOST_ADDRESSES]
