"""Limits: who may ask which host now, over all workers. No I/O, no threads, no clock of its own.

A permit is the right to have one request to a host open. About every 50 ms a worker says how many
permits it holds and how many requests wait, for all of its hosts in one call; the answer says how
many requests more may begin, and how many permits it may keep. While it holds no more than that
it hands the permit of a finished request to its next one without asking again.

1. A host's permits are shared fairly: nobody gets more than he asks for, and who asks for more than
   an equal share leaves the others theirs (max-min fairness).
2. Where there are more workers than permits those at the front of the host's line have a share, and
   go to its back after `SLICE_S` with a permit. A permit that comes free is kept for the first in
   the line that lacks one.
3. With a rate each request needs a grant of its own, which costs a token, and takes its worker to
   the back of the line; tokens are kept for the first in it, too.

What a worker holds is what it said last plus what it was granted since, so that an answer that got
lost is healed by the next call. A worker not heard of for `ttl_s` loses its permits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import floor

Grants = dict[str, tuple[int, int]]  # host -> requests that may begin, permits that may be kept
SLICE_S = 1.0  # with a permit, before another worker that has none has its turn
LATENCY_S = 0.05  # tokens of this time are saved up, else each wait for the next call costs rate
TINY = 1e-9  # a token that lacks this much for the sake of rounding is one


@dataclass(slots=True)
class _Claim:
    """One worker at one host. since: when it came to hold its first permit, None while none."""

    held: int = 0
    wanted: int = 0
    since: float | None = None

    @property
    def demand(self) -> int:
        return self.held + self.wanted


@dataclass
class _Worker:
    heard: float
    hosts: set[str] = field(default_factory=set)


@dataclass
class _Bucket:
    """Tokens of a host as of a time."""

    tokens: float
    at: float


Line = dict[str, _Claim]  # worker -> claim; the first has been waiting longest


class HostLimits:
    """`per_host` open requests to a host and `rate` new ones a second, over all workers.

    rate: None for no limit; else at most 1 + rate * (LATENCY_S + w) requests begin in w seconds.
    Holds for workers that call at least every `ttl_s` seconds.
    """

    def __init__(
        self,
        per_host: int,
        rate: float | None = None,
        ttl_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_host, self.rate, self.ttl_s, self.clock = per_host, rate, ttl_s, clock
        self.burst = 1 + (rate or 0) * LATENCY_S
        self._workers: dict[str, _Worker] = {}
        self._lines: dict[str, Line] = {}
        self._buckets: dict[str, _Bucket] = {}  # in the order of their last use

    def exchange(self, worker: str, held: Mapping[str, int], wanted: Mapping[str, int]) -> Grants:
        """Take what `worker` has and wants, whole, for what it held and wanted before; answer.

        held: permits, those of open requests and spare ones. wanted: requests that wait beside
        those. A host that is not in the answer: none may begin, and all permits may be kept.
        """
        now = self.clock()
        self._bury(now)
        self._forget_full(now)
        hosts = {host for host, n in held.items() if n > 0}
        hosts.update(host for host, n in wanted.items() if n > 0)
        self._leave(worker, hosts)
        if hosts:
            self._workers[worker] = _Worker(now, hosts)
        grants: Grants = {}
        for host in hosts:
            line = self._claimed(host, worker, held.get(host, 0), wanted.get(host, 0), now)
            if len(line) > 1 or line[worker].wanted:
                self._answer(grants, host, line, worker, now)
        return grants

    def _claimed(self, host: str, worker: str, held: int, wanted: int, now: float) -> Line:
        """The host's line, with what the worker says of itself."""
        line = self._lines.get(host)
        if line is None:
            line = self._lines[host] = {}
        claim = line.get(worker)
        if claim is None:
            claim = line[worker] = _Claim()
        claim.wanted = max(0, wanted)
        _hold(claim, max(0, held), now)
        return line

    def _answer(self, grants: Grants, host: str, line: Line, worker: str, now: float) -> None:
        claim = line[worker]
        share, grant = self._allotted(line, worker, now)
        if grant and self.rate:
            grant = self._paid(host, line, worker, grant, now)
        if grant or claim.wanted or claim.held > share:
            grants[host] = (grant, 0 if self.rate else share)
        if grant:
            claim.wanted -= grant
            _hold(claim, claim.held + grant, now)
            if self.rate:
                line[worker] = line.pop(worker)

    def _allotted(self, line: Line, worker: str, now: float) -> tuple[int, int]:
        """The worker's share, and how many of its requests may begin as far as permits go."""
        claim = line[worker]
        if len(line) == 1:
            return self.per_host, max(0, min(claim.wanted, self.per_host - claim.held))
        if len(line) > self.per_host and not self.rate:
            _rotate(line, now)
        shares = _shares(line, self.per_host)
        free = self.per_host - sum(c.held for c in line.values())
        free -= sum(_lack(line[w], shares[w]) for w in _before(line, worker))
        return shares[worker], max(0, min(_lack(claim, shares[worker]), free))

    def _paid(self, host: str, line: Line, worker: str, grant: int, now: float) -> int:
        """As much of a grant as there are tokens, one of them left to each worker before it."""
        shares = _shares(line, self.per_host)
        ahead = sum(_lack(line[w], shares[w]) > 0 for w in _before(line, worker))
        bucket = self._bucket(host, self.rate or 0, now)
        paid = max(0, min(grant, floor(bucket.tokens + TINY) - ahead))
        bucket.tokens -= paid
        return paid

    def _bucket(self, host: str, rate: float, now: float) -> _Bucket:
        """The host's bucket, filled as of now; the last in order of use."""
        bucket = self._buckets.pop(host, None) or _Bucket(self.burst, now)
        bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        self._buckets[host] = bucket
        return bucket

    def _forget_full(self, now: float) -> None:
        while self.rate and self._buckets:
            host, bucket = next(iter(self._buckets.items()))
            if now - bucket.at < self.burst / self.rate:
                break
            del self._buckets[host]

    def _bury(self, now: float) -> None:
        for worker in [w for w, it in self._workers.items() if now - it.heard > self.ttl_s]:
            self._leave(worker, set())

    def _leave(self, worker: str, but: set[str]) -> None:
        """The worker has no claim any more, but on these hosts."""
        known = self._workers.pop(worker, None)
        for host in (known.hosts if known else set()) - but:
            del self._lines[host][worker]
            if not self._lines[host]:
                del self._lines[host]


def _lack(claim: _Claim, share: int) -> int:
    """Requests that wait at a worker and that its share has room for."""
    return max(0, min(claim.wanted, share - claim.held))


def _before(line: Line, worker: str) -> Iterator[str]:
    return takewhile(lambda other: other != worker, line)


def _hold(claim: _Claim, held: int, now: float) -> None:
    if claim.since is None or not held:
        claim.since = now if held else None
    claim.held = held


def _rotate(line: Line, now: float) -> None:
    """Who has had a permit for a slice of time goes behind those that wait."""
    for worker, claim in list(line.items()):
        if claim.since is not None and now - claim.since >= SLICE_S:
            claim.since = now
            line[worker] = line.pop(worker)


def _shares(line: Line, permits: int) -> dict[str, int]:
    """Worker -> permits: max-min fair by demand; what cannot be divided goes to the front."""
    demands = [claim.demand for claim in line.values()]
    level = _level(demands, permits)
    shares = {worker: min(claim.demand, level) for worker, claim in line.items()}
    over = permits - sum(shares.values())
    for worker, claim in line.items():
        if over > 0 and claim.demand > level:
            shares[worker] += 1
            over -= 1
    return shares


def _level(demands: list[int], permits: int) -> int:
    """The largest number of which everybody can have as much as he asks for."""
    left = permits
    for done, demand in enumerate(sorted(demands)):
        equal = left // (len(demands) - done)
        if demand > equal:
            return equal
        left -= demand
    return permits
