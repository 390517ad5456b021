"""Dispatch: what all workers of a download share: limits and pauses per host, and the tally."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from curate.web.limits import Grants, HostLimits
from curate.web.pauses import Pauses, Told
from curate.web.tally import Tally

RECENT_S = 10.0  # the rates of a report are those of this time


class Dispatcher:
    """One per download, in this process or in an actor of its own. Thread-safe.

    per_host, rate, ttl_s: see `HostLimits`; `Turns` has to know the same ttl_s.
    """

    def __init__(
        self,
        per_host: int,
        rate: float | None = None,
        ttl_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = HostLimits(per_host, rate, ttl_s, clock)
        self._pauses = Pauses(clock)
        self._clock = clock
        self._tally = Tally()
        self._lock = threading.Lock()
        self._began = self._clock()
        self._marks: deque[tuple[float, int, int]] = deque([(self._began, 0, 0)])

    def exchange(
        self,
        worker: str,
        held: Mapping[str, int],
        wanted: Mapping[str, int],
        news: Mapping[str, Any],
        paused: Told | None = None,
    ) -> tuple[Grants, Told]:
        """A worker's call: see `HostLimits.exchange`; news is what its tally's `take` gave.

        paused: hosts that want to be left alone. Nothing is granted to those; beside the grants, of
        the hosts that the worker holds or wants, those that are to be left alone.
        """
        self._tally.add(news)
        with self._lock:
            self._pauses.add(paused or {})
            alone = self._pauses.of({*held, *wanted})
            open_to = {host: n for host, n in wanted.items() if host not in alone}
            return self._limits.exchange(worker, held, open_to), alone

    def report(self) -> dict[str, Any]:
        """The tally's summary, the rates of the last seconds, and all that as a `line` of text.

        Keys: those of `Tally.summary`, seconds since the beginning, rows_per_s, bytes_per_s, line.
        """
        with self._lock:
            now, rows, size = self._clock(), self._tally.rows, self._tally.bytes
            while len(self._marks) > 1 and now - self._marks[1][0] >= RECENT_S:
                self._marks.popleft()
            then, *before = self._marks[0]
            self._marks.append((now, rows, size))
        recent_s = max(now - then, 1e-9)
        return self._tally.summary() | {
            "seconds": now - self._began,
            "rows_per_s": (rows - before[0]) / recent_s,
            "bytes_per_s": (size - before[1]) / recent_s,
            "line": self._tally.line(recent_s, (before[0], before[1])),
        }
