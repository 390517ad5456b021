"""Pauses: hosts that want to be left alone for a while (429 or 503 with a Retry-After)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

Told = dict[str, tuple[float, str]]  # host -> seconds from now, the error of its URLs meanwhile
LONGEST_S = 3600.0  # a host that asks for more is tried again after this
MOST_HOSTS = 10_000  # remembered; the one that was told least recently goes first


class Paused(Exception):  # noqa: N818 - an outcome
    """No request to this host may begin for `seconds`; error: what it said."""

    def __init__(self, seconds: float, error: str) -> None:
        super().__init__(error)
        self.seconds = seconds


class Pauses:
    """Until when which hosts are left alone. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hosts: OrderedDict[str, tuple[float, str]] = OrderedDict()  # until when

    def add(self, told: Told) -> None:
        """Of two pauses of a host the one that ends later counts."""
        for host, (seconds, error) in told.items():
            until = self._clock() + min(seconds, LONGEST_S)
            self._hosts[host] = max(self._hosts.get(host, (until, error)), (until, error))
            self._hosts.move_to_end(host)
        while len(self._hosts) > MOST_HOSTS:
            self._hosts.popitem(last=False)

    def of(self, hosts: Iterable[str]) -> Told:
        """The pauses of these hosts that are not over."""
        found: Told = {}
        for host in hosts if self._hosts else ():
            until, error = self._hosts.get(host, (0.0, ""))
            if until > self._clock():
                found[host] = (until - self._clock(), error)
            else:
                self._hosts.pop(host, None)
        return found

    def check(self, host: str) -> None:
        """Raises Paused."""
        if told := self.of((host,)):
            raise Paused(*told[host])
