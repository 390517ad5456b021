"""A host that wants to be left alone: every worker that waits for its turn is told."""

from __future__ import annotations

import asyncio

import pytest

from curate.web.dispatch import Dispatcher
from curate.web.pauses import Paused
from curate.web.turns import Turns
from tests.fetching import asking


def test_a_pause_reaches_who_waits_at_every_worker():
    """Those in a queue are told how long it takes and why, here and at another worker."""
    dispatcher = Dispatcher(per_host=1)

    async def wait(turns: Turns) -> Paused:
        with pytest.raises(Paused, match="HTTP Error 429") as told:
            async with turns.of("a"):
                pytest.fail("the host is paused")
        return told.value

    async def run() -> None:
        one, other = Turns(asking(dispatcher), "one"), Turns(asking(dispatcher), "other")
        async with one.of("a"):
            waiting = [asyncio.create_task(wait(turns)) for turns in (one, one, other)]
            while one._waiting + other._waiting < len(waiting):
                await asyncio.sleep(0)
            one.pause("a", 60, "HTTP Error 429: Slow")
            told = await asyncio.gather(*waiting)
        assert all(59 < paused.seconds <= 60 for paused in told)
        async with other.of("b"):  # another host is not meant
            pass
        await one.close()
        await other.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_pause_that_could_not_be_told_is_told_later():
    """Where the message is lost the next one has it."""
    dispatcher = Dispatcher(per_host=1)
    ask = asking(dispatcher, failures=2)

    async def run() -> None:
        turns = Turns(ask, "w")
        turns.pause("a", 60, "HTTP Error 503: Busy")
        async with turns.of("b"):
            pass
        await turns.close()

    asyncio.run(asyncio.wait_for(run(), 10))
    grants, paused = dispatcher.exchange("other", {}, {"a": 1}, {})
    assert (grants, paused["a"][1]) == ({}, "HTTP Error 503: Busy")
