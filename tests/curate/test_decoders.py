"""Threads for codecs that may never return."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from curate.decoders import Decoders


def test_jobs_are_done_in_threads_and_errors_come_back():
    """What the function returns or raises is what the awaiting side gets."""

    async def main() -> list[int]:
        decoders = Decoders(2, 5)
        with pytest.raises(ZeroDivisionError):
            await decoders.run(lambda: 1 // 0)
        done = await asyncio.gather(*(decoders.run(pow, n, 2) for n in range(9)))
        decoders.close()
        return done

    assert asyncio.run(main()) == [n * n for n in range(9)]


def test_a_job_that_hangs_is_given_up_and_does_not_hold_those_behind_it():
    """After its limit it raises; the waiting jobs, whose time has not begun, are done."""
    never = threading.Event()

    async def main() -> list[object]:
        decoders = Decoders(1, 0.2)
        jobs = [decoders.run(never.wait), *(decoders.run(str, n) for n in range(3))]
        done = await asyncio.gather(*jobs, return_exceptions=True)
        return [*done, await decoders.run(str, "later")]

    hung, *others = asyncio.run(main())
    never.set()
    assert isinstance(hung, TimeoutError)
    assert others == ["0", "1", "2", "later"]


def test_a_job_that_nobody_awaits_any_more_is_not_begun():
    """Who has stopped waiting costs nothing."""
    gate, begun = threading.Event(), []

    async def main() -> None:
        decoders = Decoders(1, 5)
        first = asyncio.create_task(decoders.run(gate.wait))
        second = asyncio.create_task(decoders.run(begun.append, 1))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        await decoders.run(begun.append, 2)

    asyncio.run(main())
    assert begun == [2]


def test_a_job_that_hangs_does_not_hold_the_process():
    """The threads are daemons: an interpreter with a stuck one ends."""
    script = (
        "import asyncio, threading; from curate.decoders import Decoders\n"
        "try: asyncio.run(Decoders(1, 0.1).run(threading.Event().wait))\n"
        "except TimeoutError: print('given up')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=30, capture_output=True, text=True
    )
    assert done.stdout == "given up\n"
