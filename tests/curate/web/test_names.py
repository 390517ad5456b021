"""Lookups: shared, bounded, remembered, asked again where a packet is lost."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from curate.web import names
from curate.web.deadline import Deadline
from curate.web.names import Answer, Names
from tests.name_server import SERVFAIL, NameServer, name_server

MANY = [f"8.8.8.{n}" for n in range(20)]
SOON_S = 0.1  # in which a question that is asked at all reaches the server


async def found(server: NameServer, *hosts: str, at_once: int = 4) -> list[Answer | BaseException]:
    """What a new cache finds, all at once."""
    cache = Names(at_once, [server.address])
    try:
        return await asyncio.gather(*map(cache.find, hosts), return_exceptions=True)
    finally:
        await cache.close()


def test_calls_for_one_name_share_a_lookup_and_its_first_addresses():
    """Ten at once are one lookup, and no more addresses are kept than may be tried."""
    with name_server({"a.example": MANY}) as server:
        answers = asyncio.run(found(server, *["a.example"] * 10))
    assert server.asked == ["a.example"]
    assert len(answers) == 10
    for answer in answers:
        assert len(answer) == 8
        assert {(socket.AF_INET, address) for address in MANY} >= set(answer)


def test_both_families_are_found():
    """A name may have addresses of one kind or of both."""
    known = {"both.example": ["8.8.8.8", "2606:4700::1"], "six.example": ["2606:4700::1"]}
    with name_server(known) as server:
        both, six = asyncio.run(found(server, *known))
    assert set(both) == {(socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2606:4700::1")}
    assert six == [(socket.AF_INET6, "2606:4700::1")]


def test_no_more_lookups_than_allowed_run_at_once():
    """`dns_concurrency` bounds the names that a server is asked for."""
    hosts = [f"{n}.example" for n in range(30)]

    async def bounded(server: NameServer) -> list[Answer | BaseException]:
        server.go.clear()
        all_of = asyncio.create_task(found(server, *hosts, at_once=3))
        while len(set(server.asked)) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(SOON_S)  # a fourth would have come with them
        assert set(server.asked) == set(hosts[:3])
        server.go.set()
        return await all_of

    with name_server({host: ["8.8.8.8"] for host in hosts}) as server:
        assert asyncio.run(bounded(server)) == [[(socket.AF_INET, "8.8.8.8")]] * 30


def test_names_whose_packets_are_lost_are_asked_for_again():
    """A name server that drops what is too much for it costs a second or so, not five a name."""
    hosts = [f"{n}.example" for n in range(40)]
    with name_server({}, lose=2) as server:
        began = time.monotonic()
        answers = asyncio.run(found(server, *hosts, at_once=16))
    assert {answer.errno for answer in answers} == {socket.EAI_NONAME}
    assert len(server.asked) == 3 * len(hosts)
    assert time.monotonic() - began < 4 * len(hosts) / 16


@pytest.mark.parametrize(
    ("known", "errno", "lookups"),
    [
        ({"a.example": ["8.8.8.8"]}, None, 1),
        ({"a.example": []}, socket.EAI_NONAME, 1),  # it exists and has no address
        ({}, socket.EAI_NONAME, 1),
        ({"a.example": SERVFAIL}, socket.EAI_AGAIN, 2),
    ],
)
def test_what_a_lookup_says_is_remembered_unless_it_may_pass(known, errno, lookups):
    """Addresses and names that do not exist are; a name server that fails is asked again."""

    async def twice(server: NameServer) -> list[int]:
        cache, asked = Names(1, [server.address]), []
        for _ in range(2):
            (answer,) = await asyncio.gather(cache.find("a.example"), return_exceptions=True)
            assert getattr(answer, "errno", None) == errno
            asked.append(len(server.asked))
        await cache.close()
        return asked

    with name_server(known) as server:
        first, both = asyncio.run(twice(server))
    assert (both > first) == (lookups > 1)


def test_the_cache_is_bounded(monkeypatch):
    """The least recently used name is forgotten first."""
    monkeypatch.setattr(names, "MOST_NAMES", 2)

    async def some(server: NameServer) -> None:
        cache = Names(1, [server.address])
        for host in ("a.x", "b.x", "a.x", "c.x", "a.x", "b.x"):
            await cache.find(host)
        await cache.close()

    with name_server({host: ["8.8.8.8"] for host in ("a.x", "b.x", "c.x")}) as server:
        asyncio.run(some(server))
    assert server.asked == ["a.x", "b.x", "c.x", "b.x"]


def test_the_deadline_runs_while_a_name_is_looked_up_not_before():
    """Behind a lookup that hangs others wait and lose no time; who waits for itself times out."""

    async def two(server: NameServer) -> tuple[float, float]:
        server.go.clear()
        cache = Names(1, [server.address])
        first, second = Deadline(0.1), Deadline(0.1)
        asked = asyncio.create_task(cache.find("a.example", first))
        queued = asyncio.create_task(cache.find("b.example", second))
        (ended,) = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(ended, TimeoutError)
        assert second.left_s == 0.1
        server.go.set()
        await queued
        await cache.close()
        return first.left_s, second.left_s

    with name_server({"a.example": ["8.8.8.8"], "b.example": ["8.8.4.4"]}) as server:
        first, second = asyncio.run(two(server))
    assert first <= 0.01
    assert 0 < second < 0.1


@pytest.mark.parametrize("host", ["a..b", "x" * 300, ""])
def test_what_cannot_be_a_name_is_not_found(host):
    """The resolver's own refusals are lookups that failed."""
    with name_server({}) as server:
        (answer,) = asyncio.run(found(server, host))
    assert isinstance(answer, socket.gaierror)


def test_the_systems_own_names_are_found():
    """Without a server of its own it knows what this machine calls itself."""

    async def localhost() -> Answer:
        cache = Names(1)
        try:
            return await cache.find("localhost")
        finally:
            await cache.close()

    assert (socket.AF_INET, "127.0.0.1") in asyncio.run(localhost())
