"""Tally: what came of requests, in bounded memory, from many workers.

A worker counts and sends what is new (`take`), the dispatcher adds that up (`add`). Error texts and
hosts come from strangers: they are cleaned and cut, and only the heaviest are kept by name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

News = dict[str, Any]  # plain JSON: what `take` gives and `add` takes
KEPT = 1000  # errors, and hosts, that are kept by name
OTHERS = "(others)"
TEXT_CHARS, HOST_CHARS = 160, 100
FEW = 3  # requests from which on a host's mean says something
MEGABYTE = 1e6


class Tally:
    """Rows, successes, bytes, errors and hosts. May be used from several threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.rows = self.successes = self.bytes = 0
        self._errors: dict[str, int] = {}
        self._hosts: dict[str, tuple[int, int, float]] = {}  # requests, failures, seconds

    def row(self, host: str, error: str | None, size: int, seconds: float) -> None:
        """A row ended. error: None for a success. size: bytes that came. seconds: it took."""
        news_errors = {} if error is None else {_clean(error, TEXT_CHARS): 1}
        news_hosts = {_clean(host, HOST_CHARS): (1, int(error is not None), seconds)}
        with self._lock:
            self._count(1, int(error is None), size, news_errors, news_hosts)

    def add(self, news: Mapping[str, Any]) -> None:
        """Add what another tally's `take` gave; {} is nothing."""
        if not news:
            return
        with self._lock:
            self._count(
                news["rows"], news["successes"], news["bytes"], news["errors"], news["hosts"]
            )

    def take(self) -> News:
        """All that was counted since the last time, which is then forgotten here; {} if nothing."""
        with self._lock:
            if not self.rows:
                return {}
            news = {
                "rows": self.rows,
                "successes": self.successes,
                "bytes": self.bytes,
                "errors": self._errors,
                "hosts": {host: list(facts) for host, facts in self._hosts.items()},
            }
            self._clear()
            return news

    def _count(
        self,
        rows: int,
        successes: int,
        size: int,
        errors: Mapping[str, int],
        hosts: Mapping[str, Any],
    ) -> None:
        self.rows += rows
        self.successes += successes
        self.bytes += size
        for text, n in errors.items():
            self._errors[text] = self._errors.get(text, 0) + n
        for host, (requests, failures, seconds) in hosts.items():
            old = self._hosts.get(host, (0, 0, 0.0))
            self._hosts[host] = (old[0] + requests, old[1] + failures, old[2] + seconds)
        if len(self._errors) > 2 * self.kept:
            self._errors = _heaviest(self._errors, self.kept)
        if len(self._hosts) > 2 * self.kept:
            self._hosts = _slowest(self._hosts, self.kept)

    def top_errors(self, n: int) -> list[tuple[str, int]]:
        """The most frequent errors with their counts, most frequent first."""
        with self._lock:
            errors = list(self._errors.items())
        return sorted(errors, key=lambda item: (item[0] == OTHERS, -item[1], item[0]))[:n]

    def slowest_hosts(self, n: int) -> list[tuple[str, int, int, float]]:
        """Host, requests, failures, mean seconds; by the mean, hosts with `FEW` requests first."""
        with self._lock:
            hosts = [(host, *facts) for host, facts in self._hosts.items() if host != OTHERS]
        rows = [(host, n, failures, seconds / n) for host, n, failures, seconds in hosts if n]
        return sorted(rows, key=lambda row: (row[1] < FEW, -row[3], row[0]))[:n]

    def line(self, elapsed_s: float, before: tuple[int, int] = (0, 0)) -> str:
        """One line for people: the rates of the last `elapsed_s` seconds, shares of all rows.

        before: rows and bytes as they were `elapsed_s` ago.
        """
        elapsed_s = max(elapsed_s, 1e-9)
        rows_per_s = f"{(self.rows - before[0]) / elapsed_s:,.0f}".replace(",", " ")
        mb_per_s = f"{(self.bytes - before[1]) / elapsed_s / MEGABYTE:.1f}"
        counts = [f"{rows_per_s} rows/s", f"{mb_per_s} MB/s"]
        parts = [f"{text} {_percent(n, self.rows)}" for text, n in self.top_errors(1)]
        parts += [f"slow: {h} {mean:.1f} s" for h, n, _, mean in self.slowest_hosts(1) if n >= FEW]
        if self.rows:
            counts.append(f"{_percent(self.successes, self.rows)} ok")
        return "; ".join([", ".join(counts), *parts])

    def summary(self, n: int = 10) -> dict[str, Any]:
        """Counts, the `n` most frequent errors and the `n` slowest hosts, ready for JSON."""
        return {
            "rows": self.rows,
            "successes": self.successes,
            "bytes": self.bytes,
            "errors": dict(self.top_errors(n)),
            "slowest_hosts": [
                {
                    "host": host,
                    "requests": requests,
                    "failures": failures,
                    "mean_seconds": round(mean, 3),
                }
                for host, requests, failures, mean in self.slowest_hosts(n)
            ],
        }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _clean(text: str, chars: int) -> str:
    """`text` on one line, cut."""
    text = text[:chars]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def _heaviest(errors: dict[str, int], kept: int) -> dict[str, int]:
    """The most frequent; what the others count is summed up."""
    order = sorted(errors, key=lambda text: (text == OTHERS, -errors[text]))
    names = [text for text in order[:kept] if text != OTHERS]
    named = {text: errors[text] for text in names}
    return named | {OTHERS: sum(errors.values()) - sum(named.values())}


def _slowest(
    hosts: dict[str, tuple[int, int, float]], kept: int
) -> dict[str, tuple[int, int, float]]:
    """The hosts that took most seconds together, slow ones and busy ones; the others are summed."""
    order = sorted(hosts, key=lambda host: (host == OTHERS, -hosts[host][2]))
    named = {host: hosts[host] for host in order[:kept] if host != OTHERS}
    rest = [facts for host, facts in hosts.items() if host not in named]
    others = (sum(f[0] for f in rest), sum(f[1] for f in rest), sum(f[2] for f in rest))
    return named | {OTHERS: others}
