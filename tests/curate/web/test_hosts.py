"""Giving hosts up, and lining up for them."""

from __future__ import annotations

import asyncio

from curate.web import hosts
from curate.web.hosts import GivenUp, Lines


def test_a_host_is_given_up_after_failures_in_a_row_only():
    """A success in between begins the count anew; another host is another count."""
    given_up = GivenUp(2)
    given_up.failed("a:80", "timed out")
    given_up.answered("a:80")
    given_up.failed("a:80", "timed out")
    given_up.failed("b:80", "timed out")
    assert given_up.error("a:80") is None
    given_up.failed("a:80", "connection refused")
    assert given_up.error("a:80") == "host gave up: connection refused"
    assert given_up.error("a:81") is None
    assert given_up.error("b:80") is None


def test_one_url_may_try_again_after_a_while(monkeypatch):
    """The probe's failure closes the host for another while, its success opens it."""
    clock = 1000.0
    monkeypatch.setattr(hosts.time, "monotonic", lambda: clock)
    given_up = GivenUp(1)
    given_up.failed("a:80", "timed out")
    clock += hosts.FORGET_S
    assert given_up.error("a:80") is None  # who only wants to know takes nothing away
    assert given_up.error("a:80", asking=True) is None
    assert given_up.error("a:80", asking=True) == "host gave up: timed out"
    given_up.failed("a:80", "timed out")
    assert given_up.error("a:80", asking=True)
    clock += hosts.FORGET_S
    assert given_up.error("a:80", asking=True) is None
    given_up.answered("a:80")
    assert given_up.error("a:80", asking=True) is None


def test_zero_never_gives_up_and_what_is_remembered_is_bounded(monkeypatch):
    """No limit, no memory; with one, the least recent hosts are forgotten."""
    never = GivenUp(0)
    never.failed("a:80", "timed out")
    assert never.error("a:80") is None
    monkeypatch.setattr(hosts, "MOST_HOSTS", 3)
    given_up = GivenUp(1)
    for n in range(5):
        given_up.failed(f"{n}:80", "timed out")
    assert [given_up.error(f"{n}:80") is None for n in range(5)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_lines_are_short_per_host_and_in_all_and_leave_nothing():
    """Not more than the two bounds are inside at any time."""
    inside: list[str] = []
    most = {"a": 0, "b": 0, "all": 0}

    async def one(lines: Lines, host: str) -> None:
        async with lines.of(host):
            inside.append(host)
            for name in ("a", "b"):
                most[name] = max(most[name], inside.count(name))
            most["all"] = max(most["all"], len(inside))
            await asyncio.sleep(0)
            inside.remove(host)

    async def run() -> Lines:
        lines = Lines(2, 3)
        await asyncio.gather(*(one(lines, host) for host in "ab" * 10))
        return lines

    assert not asyncio.run(run())._lines
    assert most == {"a": 2, "b": 2, "all": 3}
