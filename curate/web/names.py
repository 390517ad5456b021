"""Names: host names -> addresses, a few lookups at once, each answer remembered for a while.

Looked up by c-ares, not by the C library: that needs a thread each, and asks again after 5 s only.
Name servers drop what is more than they take (a cloud's about 1 000 packets a second, a small one's
60), so that a list full of dead names would wait for little else.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from aiodns import DNSResolver, error

from curate.web.deadline import Deadline

TTL_S = 300
MOST_NAMES = 10_000  # remembered; the least recently used one goes first
MOST_ADDRESSES = 8  # of one name: each that is tried may cost a time-out
ASK_AGAIN_S, ASKED = 1.0, 6  # a server that is known to be fast is asked again sooner
NO_NAME = frozenset({error.ARES_ENOTFOUND, error.ARES_ENODATA, error.ARES_EBADNAME})

Addresses = list[tuple[int, str]]  # (address family, address)
Answer = Addresses | socket.gaierror


@dataclass(frozen=True)
class _Lookup:
    begun: asyncio.Event  # a server is asked
    answer: asyncio.Task[Answer]


class Names:
    """A cache of lookups; what does not exist is remembered too, a failing name server is not.

    servers: "address:port" each; None: the system's. For one event loop.
    """

    def __init__(self, at_once: int, servers: Sequence[str] | None = None) -> None:
        self._servers = servers
        self._resolver: DNSResolver | None = None
        self._free = asyncio.Semaphore(at_once)
        self._known: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._running: dict[str, _Lookup] = {}

    async def find(self, host: str, deadline: Deadline | None = None) -> Addresses:
        """The addresses of a name. Concurrent calls for one name share a lookup.

        deadline: runs while a server is asked, not while others are looked up before.
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
        try:
            async with self._free:
                begun.set()
                answer = await self._asked(host)
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
        if self._resolver is not None:
            await self._resolver.close()

    async def _asked(self, host: str) -> Answer:
        if self._resolver is None:  # it needs the running loop
            self._resolver = DNSResolver(self._servers, timeout=ASK_AGAIN_S, tries=ASKED)
        try:
            found = await self._resolver.getaddrinfo(host, socket.AF_UNSPEC)
        except error.DNSError as failure:
            passing = failure.args[0] not in NO_NAME
            return socket.gaierror(
                socket.EAI_AGAIN if passing else socket.EAI_NONAME, failure.args[1]
            )
        except ValueError as failure:  # UnicodeError too
            return socket.gaierror(socket.EAI_NONAME, str(failure))
        addresses = dict.fromkeys((int(node.family), _text(node.addr[0])) for node in found.nodes)
        return list(addresses)[:MOST_ADDRESSES]


def _text(address: str | bytes) -> str:
    return address.decode() if isinstance(address, bytes) else address
