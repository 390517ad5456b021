"""Engine: map a worker over part numbers, here or on Ray. The only file that imports ray.

`build()` is called once per worker and returns `work(part) -> stats`; `work` reads and writes its
part by itself, so that only part numbers and a few counts travel. A dead worker costs its part,
which another one takes over. A cluster that was running before is never shut down.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from curate.progress import Live, progress
from schemas.configs import Workers

log = logging.getLogger(__name__)
Stats = dict[str, float]
Work = Callable[[int], Stats]
LIVES = 3  # actors that a part may cost
GATHER_S = 10.0  # in which all actors should be there; then those that are take what is left
# pairs from which on a stage of joins is spread: a pool of actors takes seconds to start, and
# DuckDB uses all cores of this process anyway
WORTH_WORKERS = 1_000_000


def run_parts(
    build: Callable[[], Work],
    parts: Sequence[int],
    workers: Workers | int = 0,
    *,
    label: str = "parts",
    model: bool = False,
    in_hand: int = 1,
    live: Live | None = None,
) -> Stats:
    """Run `build()(part)` for every part; returns the sums of what the calls returned.

    workers: 0 runs here, without Ray. model: whether a worker wants a GPU where there is one.
    in_hand: parts that one worker works on at once, each in a thread, for work that waits.
    live: how far the work is between two ends of parts, for the progress line.
    Raises what a worker raised: parts that were finished before stay finished.
    """
    where = _where(workers)
    if not parts:
        return {}
    results = (
        _here(build, parts, in_hand)
        if where.count == 0
        else _on_ray(build, parts, where, model, in_hand)
    )
    totals: Stats = {}
    with progress(label, len(parts), live=live) as advance:
        for stats in results:
            for name, value in stats.items():
                totals[name] = totals.get(name, 0) + value
            advance(int(stats.get("rows", 0)))
    return totals


def workers_for(pairs: int, workers: Workers | int) -> Workers | int:
    """The workers for a stage that computes little per pair: none below WORTH_WORKERS pairs."""
    return workers if pairs >= WORTH_WORKERS else 0


def _where(workers: Workers | int) -> Workers:
    return Workers(count=workers) if isinstance(workers, int) else workers


def _here(build: Callable[[], Work], parts: Sequence[int], in_hand: int) -> Iterator[Stats]:
    with _closing(build()) as work:
        if in_hand == 1:
            yield from map(work, parts)
            return
        threads = ThreadPoolExecutor(in_hand, thread_name_prefix="part")
        try:
            yield from threads.map(work, parts)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # closing ends what they wait for
    threads.shutdown()


@contextmanager
def _closing(work: Work) -> Iterator[Work]:
    """A worker that may have a `close`. An actor's ends with its process."""
    try:
        yield work
    finally:
        getattr(work, "close", lambda: None)()


def _on_ray(
    build: Callable[[], Work], parts: Sequence[int], where: Workers, model: bool, in_hand: int
) -> Iterator[Stats]:
    """A pool of actors for these parts: each takes the next part when it has ended one.

    Actors of Ray itself and not Ray Data's pool: that brings three processes of its own and 3 s to
    each call, for streams of blocks that are not needed where a part's number is all that travels.
    """
    import ray

    start(where)
    gpus = where.gpus
    if gpus is None:
        gpus = float(model and ray.cluster_resources().get("GPU", 0) > 0)
    _refuse_too_large(where, gpus)
    size = min(max(where.count, where.max_count or 0), len(parts))
    made = ray.remote(_Worker).options(
        num_cpus=where.cpus, num_gpus=gpus or None, max_concurrency=in_hand
    )
    pool = _Pool(lambda: made.remote(build), size, in_hand)
    try:
        yield from pool.share_out(deque(parts))
    finally:
        pool.close()


class _Pool:
    """Actors, the parts that they have in hand, and those that are still coming up."""

    def __init__(self, new: Callable[[], Any], size: int, in_hand: int) -> None:
        self.new, self.in_hand = new, in_hand
        self.began = time.monotonic()
        self.coming: dict[Any, Any] = {}  # what says that it is there -> actor
        self.load: dict[Any, int] = {}  # actor -> parts in hand
        self.busy: dict[Any, tuple[Any, int]] = {}  # answer -> actor, part
        self.deaths: Counter[int] = Counter()
        for _ in range(size):  # on a cluster these call for more nodes
            self._add()

    def _add(self) -> None:
        actor = self.new()
        self.coming[actor.ready.remote()] = actor

    def share_out(self, waiting: deque[int]) -> Iterator[Stats]:
        """What the actors return, as they end. A part whose actor died goes back into the line.

        Raises RuntimeError for a part that has killed LIVES actors.
        """
        import ray

        while waiting or self.busy:
            for ref in ray.wait([*self.coming, *self.busy], num_returns=1, timeout=GATHER_S)[0]:
                if ref in self.coming:
                    self.load[self.coming.pop(ref)] = 0
                    continue
                actor, part = self.busy.pop(ref)
                try:
                    answer = ray.get(ref)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                    self._bury(actor, part, error)
                    waiting.append(part)
                    continue
                self.load[actor] -= 1
                yield _answer(answer)
            self._hand_out(waiting)

    def _hand_out(self, waiting: deque[int]) -> None:
        """Parts to the actors that have least; one each while actors are still coming, so that a
        fast one does not take what others were made for.
        """
        late = time.monotonic() - self.began > GATHER_S
        if late and not self.load:
            log.warning("no worker has a place yet: %s", _free())
        depth = self.in_hand if late or not self.coming else 1
        while waiting and self.load:
            actor = min(self.load, key=self.load.__getitem__)
            if self.load[actor] >= depth:
                return
            part = waiting.popleft()
            self.busy[actor.do.remote(part)] = (actor, part)
            self.load[actor] += 1

    def _bury(self, actor: Any, part: int, error: Exception) -> None:
        self.deaths[part] += 1
        if self.deaths[part] >= LIVES:
            why = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise RuntimeError(f"part {part} has ended {LIVES} workers: {why[0]}") from error
        log.warning("a worker died over part %d, which is done by another one", part)
        if self.load.pop(actor, None) is not None:  # it may have had more than one part in hand
            self._add()

    def close(self) -> None:
        """End all actors."""
        import ray

        for actor in [*self.coming.values(), *self.load]:
            ray.kill(actor)


def _refuse_too_large(where: Workers, gpus: float) -> None:
    """Raise ValueError for a worker that this cluster can never place. A running one may grow."""
    import ray

    has = ray.cluster_resources()
    for name, asked in (("CPU", where.cpus), ("GPU", gpus)):
        if where.address is None and asked > has.get(name, 0):
            raise ValueError(
                f"workers.{name.lower()}s is {asked:g}: there are {has.get(name, 0):g} {name}s here"
            )


def _free() -> str:
    import ray

    free = ray.available_resources()
    return f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of the cluster are free"


def _answer(answer: tuple[str, Stats]) -> Stats:
    refused, stats = answer
    if refused:
        raise ValueError(refused)
    return stats


class Shared(Protocol):
    """One object that all workers call. It can be sent to them."""

    async def ask(self, method: str, *args: Any) -> Any:
        """What the object's method returns, for who awaits."""

    def call(self, method: str, *args: Any) -> Any:
        """The same for who waits."""


@contextmanager
def shared(build: Callable[[], object], workers: Workers | int) -> Iterator[Shared]:
    """`build()` made once, in a Ray actor of its own where there are workers, for the block."""
    where = _where(workers)
    if where.count == 0:
        yield _Here(build())
        return
    import ray

    start(where)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Held).remote(build)
    try:
        yield _There(actor)
    finally:
        ray.kill(actor)


class _Here:
    def __init__(self, held: object) -> None:
        self.held = held

    async def ask(self, method: str, *args: Any) -> Any:
        return getattr(self.held, method)(*args)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.held, method)(*args)


class _There:
    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def ask(self, method: str, *args: Any) -> Any:
        return await self.actor.do.remote(method, *args)

    def call(self, method: str, *args: Any) -> Any:
        import ray

        return ray.get(self.actor.do.remote(method, *args))


class _Held:
    """What the shared actor holds."""

    def __init__(self, build: Callable[[], object]) -> None:
        self.held = build()

    def do(self, method: str, *args: Any) -> Any:
        return getattr(self.held, method)(*args)


class _Worker:
    """What a Ray actor holds: the worker, built by its first part.

    A ValueError, ours to the user, travels as an answer, so that it arrives in its own words; any
    other error is Ray's to report.
    """

    def __init__(self, build: Callable[[], Work]) -> None:
        logging.basicConfig(level=logging.WARNING)
        self.build, self.building = build, threading.Lock()
        self.work: Work | None = None

    def ready(self) -> None:
        """Answers once the actor has a place."""

    def do(self, part: int) -> tuple[str, Stats]:
        """(why it could not, or "", what it counted)."""
        try:
            with self.building:
                self.work = self.work or self.build()
            return "", self.work(part)
        except ValueError as error:
            return str(error), {}


def start(where: Workers) -> None:
    """Join the running cluster, or start a local one that ends with this process."""
    import ray

    if ray.is_initialized():
        return
    if where.address is None:
        # else each worker runs `uv run` and uploads the folder
        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    logging.getLogger("ray").setLevel(logging.ERROR)
    began = time.perf_counter()
    ray.init(
        address=where.address or "local",
        logging_level=logging.WARNING,
        log_to_driver=False,
        include_dashboard=False if where.address is None else None,
        configure_logging=True,
        **({"num_cpus": max(where.count, os.cpu_count() or 1)} if where.address is None else {}),
    )
    log.info("Ray is up after %.1f s", time.perf_counter() - began)
