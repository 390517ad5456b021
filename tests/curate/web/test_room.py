"""Memory for bodies: bounded, first come first served, never a deadlock."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.web.room import Room, Share


def test_the_oldest_may_always_grow_and_others_wait_for_room():
    """What is beyond the room waits, in order; the body that was begun first does not."""

    async def run() -> None:
        room = Room(10)
        first, second, third = (Share(room) for _ in range(3))
        assert first.take(8)
        assert second.take(2)
        assert not third.take(1)
        waiting = asyncio.create_task(third.wait(1))
        await asyncio.sleep(0)
        assert first.take(5)  # beyond the room
        assert not second.take(1)  # behind the one that waits
        first.give_back()
        await waiting
        assert (room.free, third.held) == (7, 1)
        second.give_back()
        third.give_back()
        third.give_back()
        assert room.free == 10

    asyncio.run(run())


def test_who_stops_waiting_takes_nothing():
    """A cancelled wait leaves the room as it was."""

    async def run() -> None:
        room = Room(1)
        first, second = Share(room), Share(room)
        first.take(1)
        second.take(1)
        waiting = asyncio.create_task(second.wait(1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        second.give_back()
        first.give_back()
        assert (room.free, room.waiting, room.holders) == (1, set(), {})

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50),
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=12),
)
def test_all_bodies_end_and_never_more_than_one_is_beyond_the_room(size, bodies):
    """Whatever sizes come in whatever order: no deadlock, at most the room and one body."""
    largest = max(sum(pieces) for pieces in bodies)

    async def body(room: Room, pieces: list[int]) -> None:
        share = Share(room)
        for piece in pieces:
            if not share.take(piece):
                await share.wait(piece)
            assert size - room.free <= size + largest
            await asyncio.sleep(0)
        share.give_back()

    async def run() -> None:
        room = Room(size)
        async with asyncio.timeout(5):
            await asyncio.gather(*(body(room, pieces) for pieces in bodies))
        assert (room.free, room.holders, room.waiting) == (size, {}, set())

    asyncio.run(run())
