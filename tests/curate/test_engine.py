"""The engine: here and on Ray the same."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from curate.engine import WORTH_WORKERS, Stats, Work, run_parts, shared, workers_for
from schemas.configs import Workers


def builder(folder: Path, log: Path | None = None, others: int = 0):
    """Work that writes squares; `log` gets the process that built it, of which `others` are awaited
    before the first part.
    """

    def build() -> Work:
        if log is not None:
            log.mkdir(exist_ok=True)
            (log / str(os.getpid())).touch()

        def work(part: int) -> Stats:
            deadline = time.monotonic() + 20
            while log is not None and len(list(log.iterdir())) < others:
                assert time.monotonic() < deadline, "not so many workers were built"
                time.sleep(0.01)
            (folder / str(part)).write_text(str(part * part))
            return {"rows": part, "done": 1}

        return work

    return build


def test_every_part_is_worked_on_here(tmp_path: Path):
    """workers: 0 runs in this process, and the counts are summed."""
    assert run_parts(builder(tmp_path), [3, 1, 2]) == {"rows": 6, "done": 3}
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"1": "1", "2": "4", "3": "9"}


def test_nothing_to_do_starts_nothing(tmp_path: Path):
    """No parts, no worker and no Ray."""
    assert run_parts(builder(tmp_path, tmp_path / "log"), [], 2) == {}
    assert not (tmp_path / "log").exists()


def test_a_stage_of_joins_uses_workers_for_a_large_pool_only():
    """A pool of actors takes longer to start than a small pool to be joined here."""
    two = Workers(count=2)
    assert workers_for(WORTH_WORKERS, two) is two
    assert workers_for(WORTH_WORKERS - 1, two) == 0


def test_ray_does_the_same_with_one_build_per_worker(tmp_path: Path):
    """Parts are spread over actors that are built once each."""
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    assert run_parts(builder(out, log, others=2), list(range(9)), 2) == {"rows": 36, "done": 9}
    assert len(list(out.iterdir())) == 9
    assert len(list(log.iterdir())) == 2
    assert os.getpid() not in {int(p.name) for p in log.iterdir()}


def test_a_killed_ray_worker_costs_its_part_which_is_retried(tmp_path: Path):
    """SIGKILL of a worker in the middle of a part: another one finishes it."""

    def build() -> Work:
        def work(part: int) -> Stats:
            mark = tmp_path / f"killed-{part}"
            if part == 2 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            (tmp_path / f"done-{part}").touch()
            return {"rows": 1}

        return work

    assert run_parts(build, [0, 1, 2, 3], Workers(count=2)) == {"rows": 4}
    assert len(list(tmp_path.glob("done-*"))) == 4


def test_a_part_that_kills_every_worker_is_named_and_not_tried_for_ever(tmp_path: Path):
    """After the third dead worker the run ends and says which part it was."""

    def build() -> Work:
        def work(part: int) -> Stats:
            if part == 1:
                (tmp_path / f"{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return {"rows": 1}

        return work

    with pytest.raises(RuntimeError, match="part 1 has ended 3 workers"):
        run_parts(build, [0, 1], 2)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_worker_cannot_be_built_with_is_raised(tmp_path: Path):
    """A fault of `build` reaches the caller with its words, not as a dead worker's."""

    def build() -> Work:
        raise KeyError("no such weights")

    with pytest.raises(Exception, match="no such weights"):
        run_parts(build, [0, 1], 1)


def test_an_error_of_a_worker_is_raised_with_its_words(tmp_path: Path):
    """What a worker refuses to do reaches the caller, here and on Ray."""

    def build() -> Work:
        def work(part: int) -> Stats:
            raise ValueError(f"part {part} is no good")

        return work

    with pytest.raises(ValueError, match="part 5 is no good"):
        run_parts(build, [5])
    with pytest.raises(ValueError, match=r"^part 5 is no good$"):
        run_parts(build, [5], 1)


def meeting(folder: Path):
    """Work whose parts 0 and 1 wait for each other."""

    def build() -> Work:
        def work(part: int) -> Stats:
            (folder / str(part)).touch()
            deadline = time.monotonic() + 20
            while not (folder / str(1 - part)).exists():
                assert time.monotonic() < deadline, "the other part was not begun"
                time.sleep(0.01)
            return {"rows": 1}

        return work

    return build


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_has_two_parts_in_hand(tmp_path: Path, workers: int):
    """in_hand: 2 runs two parts of one worker at once, here and on Ray."""
    assert run_parts(meeting(tmp_path), [0, 1], workers, in_hand=2) == {"rows": 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_all_workers_call_one_shared_object(workers: int):
    """What is shared is made once: the counts of all parts meet in it."""
    with shared(Counter, workers) as counts:

        def build() -> Work:
            def work(part: int) -> Stats:
                counts.call("update", {"calls": part})
                return {}

            return work

        run_parts(build, [1, 2, 3], workers)
        assert counts.call("total") == 6


def test_work_with_a_close_is_closed_here():
    """What a worker holds is let go when the parts are done, also after an error."""

    class Held:
        closed = 0

        def __call__(self, part: int) -> Stats:
            return {"rows": 1 // part}

        def close(self) -> None:
            Held.closed += 1

    run_parts(Held, [1])
    with pytest.raises(ZeroDivisionError):
        run_parts(Held, [0], in_hand=2)
    assert Held.closed == 2


def test_parts_are_spread_before_a_worker_has_two_in_hand(tmp_path: Path):
    """Two parts that are at work at once are with two workers, though each could have two."""

    def build() -> Work:
        meet = meeting(tmp_path)()

        def work(part: int) -> Stats:
            (tmp_path / f"{os.getpid()}.pid").touch()
            return meet(part)

        return work

    run_parts(build, [0, 1], 2, in_hand=2)
    assert len(list(tmp_path.glob("*.pid"))) == 2


def test_a_worker_that_can_never_be_placed_is_an_error():
    """More CPUs than there are: named, with what there is, and no waiting for ever."""
    with pytest.raises(ValueError, match=r"workers\.cpus is 1000: there are \d+ CPUs here"):
        run_parts(lambda: lambda part: {}, [0], Workers(count=1, cpus=1000))


def test_an_error_here_closes_what_the_other_part_waits_for():
    """With two parts in hand the one that waits ends when the worker is closed."""

    class Held:
        def __init__(self) -> None:
            self.gate = threading.Event()

        def __call__(self, part: int) -> Stats:
            if part == 0:
                raise KeyError("no disk")
            assert self.gate.wait(20)
            return {}

        def close(self) -> None:
            self.gate.set()

    began = time.monotonic()
    with pytest.raises(KeyError, match="no disk"):
        run_parts(Held, [0, 1], in_hand=2)
    assert time.monotonic() - began < 10
