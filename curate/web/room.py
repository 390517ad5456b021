"""Room: how many bytes of bodies a worker holds in memory, first come first served."""

from __future__ import annotations

import asyncio
from itertools import count


class Room:
    """`size` bytes for all bodies of a worker, from their first byte until they are done with.

    The body that was begun first may always grow, so that what is partly read can end: at most one
    body is in memory beyond `size`. Bytes in the sockets' own buffers (256 kB each) do not count.
    """

    def __init__(self, size: int) -> None:
        self.free = size
        self.numbers = count()
        self.holders: dict[Share, None] = {}  # in the order in which their bodies were begun
        self.waiting: set[Share] = set()

    def fits(self, share: Share, size: int) -> bool:
        return size <= self.free or next(iter(self.holders)) is share

    def wake(self) -> None:
        """Let those go on that now may, the oldest first; none overtakes one that waits."""
        for share in sorted(self.waiting, key=lambda s: s.number):
            if not self.fits(share, share.wanted):
                return
            share.grant()


class Share:
    """What one body takes of a room."""

    def __init__(self, room: Room) -> None:
        self.room, self.number, self.held, self.wanted = room, -1, 0, 0
        self.granted: asyncio.Future[None] | None = None

    def take(self, size: int) -> bool:
        """Whether there was room for `size` bytes more, which are now taken; else await `wait`."""
        room = self.room
        if self not in room.holders:
            self.number = next(room.numbers)
            room.holders[self] = None
        alone = next(iter(room.holders)) is self
        if not alone and (room.waiting or not room.fits(self, size)):
            return False
        self._add(size)
        return True

    async def wait(self, size: int) -> None:
        """Take `size` bytes once there is room."""
        self.wanted, self.granted = size, asyncio.get_running_loop().create_future()
        self.room.waiting.add(self)
        try:
            await self.granted
        finally:
            self.room.waiting.discard(self)

    def grant(self) -> None:
        self.room.waiting.discard(self)
        self._add(self.wanted)
        if self.granted is not None and not self.granted.done():
            self.granted.set_result(None)

    def _add(self, size: int) -> None:
        self.held += size
        self.room.free -= size

    def give_back(self) -> None:
        """All of it, once the body is done with."""
        if self.room.holders.pop(self, self) is None:
            self.room.free += self.held
            self.held = 0
            self.room.wake()
