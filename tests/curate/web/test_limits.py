"""Who may ask a host now: invariants over random schedules of workers that die and miss answers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.web.limits import LATENCY_S, SLICE_S, HostLimits

TTL_S = 10.0
STEP_S = 0.02
HOSTS = ("a", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A worker that does what it is told: its open requests, those that wait, what it may keep."""

    def __init__(self, name: str, limits: HostLimits) -> None:
        self.name, self.limits, self.alive = name, limits, True
        self.open: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        self.keep: Counter[str] = Counter()
        self.begun: list[tuple[float, str]] = []

    def exchange(self, lost: bool = False) -> None:
        grants = self.limits.exchange(self.name, dict(+self.open), dict(+self.waiting))
        if lost:
            return
        for host, (granted, keep) in grants.items():
            assert 0 <= granted <= self.waiting[host]
            self.keep[host] = keep
            for _ in range(granted):
                self.begin(host)

    def begin(self, host: str) -> None:
        self.waiting[host] -= 1
        self.open[host] += 1
        self.begun.append((self.limits.clock(), host))

    def end(self, host: str) -> None:
        """A request ends; its permit goes to the next one where it may be kept."""
        if not self.open[host]:
            return
        may_reuse = self.open[host] <= self.keep[host]
        self.open[host] -= 1
        if may_reuse and self.waiting[host]:
            self.begin(host)


class World:
    def __init__(self, workers: int, per_host: int, rate: float | None = None) -> None:
        self.clock = Clock()
        self.limits = HostLimits(per_host, rate, TTL_S, self.clock)
        self.workers = [Worker(f"w{i}", self.limits) for i in range(workers)]
        self.heard = [self.clock.now] * workers

    def exchange(self, i: int, lost: bool = False) -> None:
        if self.workers[i].alive:
            self.workers[i].exchange(lost)
            self.heard[i] = self.clock.now

    def pass_time(self, seconds: float) -> None:
        """Time passes; whoever lives says so every third of the ttl."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + TTL_S / 4)
            for i in range(len(self.workers)):
                if self.clock.now - self.heard[i] >= TTL_S / 3:
                    self.exchange(i)

    def open_requests(self, host: str) -> int:
        return sum(w.open[host] for w in self.workers if w.alive)

    def begun(self, host: str) -> list[float]:
        return sorted(t for w in self.workers for t, h in w.begun if h == host)


ACTS = st.one_of(
    st.tuples(st.just("want"), st.integers(0, 3), st.sampled_from(HOSTS), st.integers(1, 9)),
    st.tuples(st.just("end"), st.integers(0, 3), st.sampled_from(HOSTS), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 3), st.sampled_from(HOSTS), st.integers(1, 4)),
    st.tuples(st.just("exchange"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("pass"), st.floats(0, 3)),
    st.tuples(st.just("pass"), st.floats(0, 3 * TTL_S)),
    st.tuples(st.just("die"), st.integers(0, 3)),
)


def act(world: World, what: tuple) -> None:
    """One step of a schedule."""
    if what[0] == "pass":
        world.pass_time(what[1])
        return
    i = what[1] % len(world.workers)
    worker = world.workers[i]
    match what[0]:
        case "exchange":
            world.exchange(i, lost=what[2])
        case "die":
            worker.alive = False
        case "want":
            worker.waiting[what[2]] += what[3]
        case "end":
            for _ in range(what[3]):
                worker.end(what[2])
        case "cancel":
            worker.waiting[what[2]] = max(0, worker.waiting[what[2]] - what[3])


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.lists(ACTS, max_size=80))
def test_a_host_never_has_more_open_requests_than_allowed(workers, per_host, schedule):
    """Over any schedule of wants, ends, deaths and lost answers, all live workers together."""
    world = World(workers, per_host)
    for what in schedule:
        act(world, what)
        assert all(world.open_requests(host) <= per_host for host in HOSTS)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.floats(0.1, 100),
    st.lists(ACTS, max_size=80),
)
def test_no_window_has_more_requests_than_the_rate(workers, per_host, rate, schedule):
    """In any w seconds at most 1 + rate * (LATENCY_S + w) requests begin; per_host holds, too."""
    world = World(workers, per_host, rate)
    for what in schedule:
        act(world, what)
        assert all(world.open_requests(host) <= per_host for host in HOSTS)
    for host in HOSTS:
        times = world.begun(host)
        for first in range(len(times)):
            for last in range(first, len(times)):
                window = times[last] - times[first]
                assert last - first + 1 <= 1 + rate * (LATENCY_S + window) + 1e-6


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([None, 0.5, 20.0]),
    st.lists(ACTS, max_size=40),
)
def test_every_wanted_request_is_granted_in_the_end(workers, per_host, rate, schedule):
    """After any schedule, what waits at live workers is done once requests end and time passes."""
    world = World(workers, per_host, rate)
    for what in schedule:
        act(world, what)
    left = sum(w.waiting[h] for w in world.workers if w.alive for h in HOSTS)
    step_s = STEP_S if rate is None else 0.5 / rate + STEP_S
    for _ in range(int(2 * TTL_S / STEP_S) + 8 * left + 8):
        world.clock.now += step_s
        for i, worker in enumerate(world.workers):
            world.exchange(i)
            for host in HOSTS:
                worker.end(host)
    for worker in world.workers:
        assert not worker.alive or not +worker.waiting


@pytest.mark.parametrize(("workers", "per_host"), [(2, 1), (4, 1), (4, 3), (3, 4)])
@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_greedy_worker_starves_nobody(workers, per_host, rate):
    """While all want without end, each gets a like number of requests."""
    world = World(workers, per_host, rate)
    for step in range(int(60 * SLICE_S / STEP_S)):
        world.clock.now += STEP_S
        for i, worker in enumerate(world.workers):
            worker.waiting["a"] = 100
            if (step + i) % 3 == 0:
                worker.end("a")
            world.exchange(i)
    counts = [len(worker.begun) for worker in world.workers]
    assert min(counts) > 0.8 * max(counts), counts
    if rate is None:
        assert sum(counts) > 0.8 * min(workers, per_host) * 60 * SLICE_S / STEP_S / 3, counts


def test_alone_a_worker_has_all_permits():
    """One worker gets per_host at once and no more."""
    limits = HostLimits(4, clock=Clock())
    assert limits.exchange("w", {}, {"a": 9}) == {"a": (4, 4)}
    assert limits.exchange("w", {"a": 4}, {"a": 5}) == {"a": (0, 4)}
    assert limits.exchange("w", {"a": 3}, {"a": 5}) == {"a": (1, 4)}


def test_a_second_worker_is_left_its_half():
    """The first is told to keep half, and the second gets what it gives back."""
    limits = HostLimits(4, clock=Clock())
    limits.exchange("w0", {}, {"a": 9})
    assert limits.exchange("w1", {}, {"a": 9}) == {"a": (0, 2)}
    assert limits.exchange("w0", {"a": 4}, {"a": 5}) == {"a": (0, 2)}
    assert limits.exchange("w0", {"a": 2}, {"a": 5}) == {"a": (0, 2)}
    assert limits.exchange("w1", {}, {"a": 9}) == {"a": (2, 2)}


def test_who_wants_little_leaves_the_rest_to_the_other():
    """Shares are equal only as far as they are wanted."""
    limits = HostLimits(8, clock=Clock())
    assert limits.exchange("w0", {}, {"a": 1}) == {"a": (1, 8)}
    assert limits.exchange("w1", {}, {"a": 20}) == {"a": (7, 7)}


def test_a_spare_permit_is_called_back_where_others_want_it():
    """A worker that holds more than its share and wants nothing is told what it may keep."""
    limits = HostLimits(2, clock=Clock())
    limits.exchange("w0", {}, {"a": 2})
    limits.exchange("w1", {}, {"a": 2})
    assert limits.exchange("w0", {"a": 2}, {}) == {"a": (0, 1)}


def test_a_silent_worker_loses_its_permits_after_the_ttl():
    """Not before, and whoever waits gets them."""
    clock = Clock()
    limits = HostLimits(2, ttl_s=TTL_S, clock=clock)
    limits.exchange("dead", {}, {"a": 2})
    clock.now += TTL_S
    assert limits.exchange("w", {}, {"a": 2})["a"][0] == 0
    clock.now += 0.01
    assert limits.exchange("w", {}, {"a": 2})["a"][0] == 2


def test_a_lost_answer_is_healed_by_the_next_call():
    """What a worker says it holds counts, not what it was once granted."""
    limits = HostLimits(2, clock=Clock())
    assert limits.exchange("w", {}, {"a": 2})["a"][0] == 2
    assert limits.exchange("w", {}, {"a": 2})["a"][0] == 2


def test_with_a_rate_no_permit_is_reused_and_one_request_begins_a_period():
    """The answer says keep 0, and one token comes every 1 / rate seconds."""
    clock = Clock()
    limits = HostLimits(4, rate=2.0, clock=clock)
    assert limits.exchange("w", {}, {"a": 3}) == {"a": (1, 0)}
    clock.now += 0.4
    assert limits.exchange("w", {"a": 1}, {"a": 2}) == {"a": (0, 0)}
    clock.now += 0.1
    assert limits.exchange("w", {"a": 1}, {"a": 2}) == {"a": (1, 0)}


def test_tokens_go_along_the_line():
    """A worker that calls at the right moment does not take the token of one that waits longer."""
    clock = Clock()
    limits = HostLimits(4, rate=1.0, clock=clock)
    assert limits.exchange("w0", {}, {"a": 9})["a"][0] == 1
    assert limits.exchange("w1", {}, {"a": 9})["a"][0] == 0
    clock.now += 1
    assert limits.exchange("w0", {"a": 1}, {"a": 8})["a"][0] == 1  # w1 came behind it ...
    assert limits.exchange("w1", {}, {"a": 9})["a"][0] == 0
    clock.now += 1
    assert limits.exchange("w0", {"a": 2}, {"a": 7})["a"][0] == 0  # ... and is before it now
    assert limits.exchange("w1", {}, {"a": 9})["a"][0] == 1


def test_the_rate_is_reached_by_polling():
    """Waiting for the next call costs no rate: 100 requests at 10/s take about 10 s."""
    world = World(2, per_host=8, rate=10.0)
    for worker in world.workers:
        worker.waiting["a"] = 50
    while any(+worker.waiting for worker in world.workers):
        world.clock.now += STEP_S * 1.37
        for i, worker in enumerate(world.workers):
            worker.end("a")
            world.exchange(i)
    times = world.begun("a")
    assert len(times) == 100
    assert 9.7 < times[-1] - times[0] < 10.2


def test_hosts_that_nobody_holds_or_wants_are_forgotten():
    """State is bounded by what is open: nothing stays of hosts, workers and full buckets."""
    clock = Clock()
    limits = HostLimits(1, rate=10.0, clock=clock)
    for n in range(1000):
        limits.exchange(f"w{n % 3}", {}, {f"host{n}": 1})
        clock.now += 0.001
    assert len(limits._buckets) <= 10 * 16
    for worker in ("w0", "w1", "w2"):
        assert limits.exchange(worker, {}, {}) == {}
    clock.now += 1
    limits.exchange("w0", {}, {})
    assert (limits._lines, limits._workers, limits._buckets) == ({}, {}, {})
