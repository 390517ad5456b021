"""Waiting for a host's turn: real event loops, a real dispatcher, real connections."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from curate.web import turns as turns_module
from curate.web.dispatch import Dispatcher
from curate.web.turns import Silent, Turns
from tests.fetching import asking


class Busy:
    """A server on loopback that holds each request for some ms and counts those that are open."""

    def __init__(self) -> None:
        self.open = self.most_open = self.served = 0
        self.times: list[float] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        self.times.append(time.monotonic())
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0.003)
        self.open -= 1
        self.served += 1
        writer.write(b"done\n")
        writer.close()

    async def __aenter__(self) -> Busy:
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=512)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()


async def request(turns: Turns, port: int) -> None:
    async with turns.of("127.0.0.1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET\n")
        assert await reader.readline() == b"done\n"
        writer.close()


async def many(turns: Turns, port: int, n: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(n):
            tasks.create_task(request(turns, port))
    await turns.close()


async def two_workers(dispatcher: Dispatcher, n: int) -> Busy:
    """`n` requests of each of two workers, each with a thread and a loop of its own."""
    async with Busy() as server:
        runs = [
            asyncio.to_thread(asyncio.run, many(Turns(asking(dispatcher), name), server.port, n))
            for name in ("w0", "w1")
        ]
        await asyncio.gather(*runs)
    return server


def test_two_workers_never_have_more_open_than_per_host():
    """The server itself sees at most 5 requests at once, uses them all, and answers every one."""
    server = asyncio.run(two_workers(Dispatcher(per_host=5), 150))
    assert server.served == 300
    assert server.most_open == 5


def test_two_workers_share_a_single_permit():
    """Where a host takes one request at a time, both workers come to an end."""
    server = asyncio.run(two_workers(Dispatcher(per_host=1), 20))
    assert (server.served, server.most_open) == (40, 1)


def test_the_rate_holds_over_two_workers():
    """30 requests at 60/s take half a second, whoever makes them."""
    server = asyncio.run(two_workers(Dispatcher(per_host=16, rate=60.0), 15))
    seconds = server.times[-1] - server.times[0]
    assert len(server.times) == 30
    assert seconds > 0.25  # 0.43: at most 1 + 60 * (0.05 + seconds); 0.02 without a rate


def test_a_spare_permit_is_taken_without_waiting():
    """The second of two requests one after the other asks nobody and never leaves its task."""
    calls: list[tuple] = []
    dispatcher = Dispatcher(per_host=2)
    ask = asking(dispatcher, calls=calls)

    async def run() -> None:
        turns = Turns(ask, "w")
        async with turns.of("a"):
            pass
        assert len(calls) == 1
        try:
            turns.of("a").__aenter__().send(None)
        except StopIteration:
            turns.end("a")
        else:
            pytest.fail("it waited")
        await turns.close()

    asyncio.run(run())


def test_a_burst_to_many_hosts_is_one_exchange():
    """Requests to 500 hosts that begin together are asked for together."""
    calls: list[tuple] = []
    dispatcher = Dispatcher(per_host=2)
    ask = asking(dispatcher, calls=calls)

    async def one(turns: Turns, host: str) -> None:
        async with turns.of(host):
            await asyncio.sleep(0)

    async def run() -> None:
        turns = Turns(ask, "w")
        await asyncio.gather(*(one(turns, f"host{i}") for i in range(500)))
        assert len(calls) == 1
        assert len(calls[0][2]) == 500
        await turns.close()

    asyncio.run(run())


def test_first_come_first_served():
    """Requests to one host begin in the order in which they asked."""
    order = []

    async def one(turns: Turns, i: int) -> None:
        async with turns.of("a"):
            order.append(i)
            await asyncio.sleep(0)

    async def run() -> None:
        turns = Turns(asking(Dispatcher(per_host=3)), "w")
        await asyncio.gather(*(one(turns, i) for i in range(50)))
        await turns.close()

    asyncio.run(run())
    assert order == list(range(50))


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_cancelled_waiter_gives_its_permit_on(rate):
    """Cancelled at any moment, before or just as its turn comes, it costs nobody a turn."""

    async def run() -> None:
        dispatcher = Dispatcher(per_host=1, rate=rate)
        turns = Turns(asking(dispatcher), "w", every_s=0.001)
        done = Counter()

        async def one(i: int) -> None:
            async with turns.of("a"):
                await asyncio.sleep(0)
                done[i] += 1

        for round_ in range(30):
            tasks = [asyncio.create_task(one(i)) for i in range(4)]
            for _ in range(round_ % 10):
                await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[2].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert done[1] == done[3] == 30
        await turns.close()
        assert dispatcher.exchange("other", {}, {"a": 1}, {})[0]["a"][0] in (0, 1)
        assert turns._waiting == 0
        assert not any(s.open or s.spare or s.waiters for s in turns._hosts.values())

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_permit_that_came_as_its_waiter_went_is_handed_over_at_once():
    """The next in the queue begins in the same turn of the loop, even with a rate."""

    async def run() -> None:
        turns = Turns(asking(Dispatcher(per_host=1, rate=0.01)), "w")
        begun = asyncio.Event()

        async def one(then: asyncio.Event | None = None) -> None:
            async with turns.of("a"):
                if then:
                    then.set()

        first, second = asyncio.create_task(one()), asyncio.create_task(one(begun))
        while turns._waiting == 2 or not turns._hosts:
            await asyncio.sleep(0)
            if turns._hosts and turns._hosts["a"].open:
                first.cancel()  # its permit is there, it has not run yet
                break
        await asyncio.wait_for(begun.wait(), 1)
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        await turns.close()

    asyncio.run(run())


def test_an_outage_of_the_dispatcher_is_waited_out():
    """A few calls that fail cost time, no request and no news."""
    dispatcher = Dispatcher(per_host=2)
    ask = asking(dispatcher, failures=3)

    async def run() -> None:
        turns = Turns(ask, "w")
        turns.tally.row("a", None, 10, 0.1)
        async with turns.of("a"):
            pass
        await turns.close()

    asyncio.run(run())
    assert dispatcher.report()["rows"] == 1


def test_who_waits_is_told_when_the_dispatcher_is_gone(monkeypatch):
    """After GIVE_UP_S without an answer, waiting and later requests raise and say why."""
    monkeypatch.setattr(turns_module, "GIVE_UP_S", 0.15)

    async def ask(*_):
        raise ConnectionError("the actor died")

    async def run() -> None:
        turns = Turns(ask, "w")
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"no answer about the limits .* actor died"):
                async with turns.of("a"):
                    pytest.fail("nobody allowed it")
        await turns.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_dispatcher_that_never_answers_is_gone_as_well(monkeypatch):
    """A call that hangs ends after GIVE_UP_S, and who waits is told."""
    monkeypatch.setattr(turns_module, "GIVE_UP_S", 0.15)

    async def ask(*_):
        await asyncio.Event().wait()

    async def run() -> None:
        turns = Turns(ask, "w")
        with pytest.raises(Silent, match=r"no answer about the limits .* TimeoutError"):
            async with turns.of("a"):
                pytest.fail("nobody allowed it")
        await turns.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_permits_are_kept_alive_while_a_request_is_open():
    """A request that takes longer than the ttl keeps its permit: the worker says so in between."""
    dispatcher = Dispatcher(per_host=1, ttl_s=0.6)

    async def run() -> None:
        turns = Turns(asking(dispatcher), "w", ttl_s=0.6)
        async with turns.of("a"):
            until = time.monotonic() + 1.3
            while time.monotonic() < until:
                assert dispatcher.exchange("other", {}, {"a": 1}, {})[0]["a"][0] == 0
                await asyncio.sleep(0.02)
        await turns.close()

    asyncio.run(run())
    assert dispatcher.exchange("other", {}, {"a": 1}, {})[0]["a"][0] == 1


def test_permits_of_a_worker_that_could_not_speak_are_not_reused():
    """After a ttl without an answer the dispatcher may have given them away: nothing begins."""
    dispatcher = Dispatcher(per_host=1)
    cut = False

    async def ask(*args):
        if cut:
            raise ConnectionError("cut")
        return dispatcher.exchange(*args)

    async def run() -> None:
        nonlocal cut
        turns = Turns(ask, "w", ttl_s=0.1)
        release = asyncio.Event()

        async def one(wait: bool) -> None:
            async with turns.of("a"):
                if wait:
                    await release.wait()

        first = asyncio.create_task(one(True))
        while not turns._hosts or not turns._hosts["a"].open:
            await asyncio.sleep(0)
        cut = True
        second = asyncio.create_task(one(False))
        await asyncio.sleep(0.15)  # the ttl passes
        release.set()
        await first
        await asyncio.sleep(0.05)
        assert not second.done()
        cut = False
        await asyncio.wait_for(second, 5)
        await turns.close()

    asyncio.run(run())


def test_an_answer_that_comes_after_the_ttl_grants_nothing():
    """The dispatcher has counted the worker as dead by then: it asks once more."""
    dispatcher = Dispatcher(per_host=1, ttl_s=0.1)
    calls = []

    async def ask(*args):
        calls.append(args)
        grants = dispatcher.exchange(*args)
        if len(calls) == 1:
            await asyncio.sleep(0.15)
            assert dispatcher.exchange("other", {}, {"a": 1}, {})[0]["a"][0] == 1
        elif len(calls) == 3:
            dispatcher.exchange("other", {}, {}, {})
        return grants

    async def run() -> None:
        turns = Turns(ask, "w", ttl_s=0.1)
        async with turns.of("a"):
            assert len(calls) > 1
        await turns.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_the_task_ends_when_there_is_nothing_to_do(monkeypatch):
    """No task stays behind, no permit is kept, and a later request starts it again."""
    monkeypatch.setattr(turns_module, "LINGER_S", 0.05)
    dispatcher = Dispatcher(per_host=1)

    async def run() -> None:
        turns = Turns(asking(dispatcher), "w")
        for _ in range(2):
            async with turns.of("a"):
                pass
            await asyncio.wait_for(asyncio.shield(turns._task), 5)
            assert turns._hosts == {}
            assert dispatcher.exchange("other", {}, {"a": 1}, {})[0] == {"a": (1, 1)}
            dispatcher.exchange("other", {}, {}, {})

    asyncio.run(run())


def test_flush_sends_the_news_that_are_left():
    """What was counted up to then is in the dispatcher's report."""
    dispatcher = Dispatcher(per_host=1)

    async def run() -> None:
        turns = Turns(asking(dispatcher), "w")
        async with turns.of("a"):
            turns.tally.row("a", None, 100, 0.2)
        turns.tally.row("b", "connection refused", 0, 0.1)
        await turns.flush()
        assert dispatcher.report()["rows"] == 2
        await turns.close()

    asyncio.run(run())
    assert dispatcher.report()["errors"] == {"connection refused": 1}
