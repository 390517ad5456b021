"""Lookups: shared, bounded, remembered."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from curate.web import names
from curate.web.deadline import Deadline
from curate.web.names import Names


class Resolver:
    """In place of getaddrinfo: answers when it is let go, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int | None = None) -> None:
        self.error = error
        self.asked: list[str] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.go.set()
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, *_: object) -> list[tuple[object, ...]]:
        with self.lock:
            self.asked.append(host)
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait()
        with self.lock:
            self.now -= 1
        if self.error is not None:
            raise socket.gaierror(self.error, "no")
        return [(socket.AF_INET, 1, 6, "", (f"8.8.8.{n}", 0)) for n in range(20)]


async def all_of(found: Names, *hosts: str) -> list[object]:
    try:
        return await asyncio.gather(*map(found.find, hosts), return_exceptions=True)
    finally:
        await found.close()


def test_calls_for_one_name_share_a_lookup_and_its_first_addresses(monkeypatch):
    """Ten at once are one lookup, and no more addresses are kept than may be tried."""
    resolver = Resolver(monkeypatch)
    answers = asyncio.run(_made(4, *["a.example"] * 10))
    assert resolver.asked == ["a.example"]
    assert len(answers) == 10
    assert all(a == [(socket.AF_INET, f"8.8.8.{n}") for n in range(8)] for a in answers)


async def _made(at_once: int, *hosts: str) -> list[object]:
    return await all_of(Names(at_once), *hosts)


def test_no_more_lookups_than_allowed_run_at_once(monkeypatch):
    """`dns_concurrency` bounds the threads."""
    resolver = Resolver(monkeypatch)
    asyncio.run(_made(3, *(f"{n}.example" for n in range(30))))
    assert len(resolver.asked) == 30
    assert resolver.most <= 3


@pytest.mark.parametrize(
    ("error", "lookups"), [(None, 1), (socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 2)]
)
def test_what_a_lookup_says_is_remembered_unless_it_may_pass(monkeypatch, error, lookups):
    """Addresses and names that do not exist are; a name server that fails is asked again."""
    resolver = Resolver(monkeypatch, error)

    async def twice() -> None:
        found = Names(1)
        for _ in range(2):
            (answer,) = await asyncio.gather(found.find("a.example"), return_exceptions=True)
            assert getattr(answer, "errno", None) == error
        await found.close()

    asyncio.run(twice())
    assert len(resolver.asked) == lookups


def test_the_cache_is_bounded(monkeypatch):
    """The least recently used name is forgotten first."""
    monkeypatch.setattr(names, "MOST_NAMES", 2)
    resolver = Resolver(monkeypatch)

    async def some() -> None:
        found = Names(1)
        for host in ("a", "b", "a", "c", "a", "b"):
            await found.find(host)
        await found.close()

    asyncio.run(some())
    assert resolver.asked == ["a", "b", "c", "b"]


def test_the_deadline_runs_while_a_name_is_looked_up_not_before(monkeypatch):
    """Behind a lookup that hangs others wait and lose no time; who waits for itself times out."""
    resolver = Resolver(monkeypatch)
    resolver.go.clear()

    async def two() -> tuple[float, float]:
        found = Names(1)
        first, second = Deadline(0.1), Deadline(0.1)
        asked = asyncio.create_task(found.find("a.example", first))
        queued = asyncio.create_task(found.find("b.example", second))
        (ended,) = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(ended, TimeoutError)
        assert second.left_s == 0.1
        resolver.go.set()
        await queued
        await found.close()
        return first.left_s, second.left_s

    first, second = asyncio.run(two())
    assert first <= 0.01
    assert 0 < second < 0.1


@pytest.mark.parametrize("host", ["a..b", "x" * 300, ""])
def test_what_cannot_be_a_name_is_not_found(host):
    """The resolver's own refusals are lookups that failed."""
    (answer,) = asyncio.run(_made(1, host))
    assert isinstance(answer, socket.gaierror)
