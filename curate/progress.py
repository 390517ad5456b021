"""Progress of long work: a bar with rate and remaining time on a terminal, a line every few seconds
elsewhere.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
EVERY_S = 10.0  # between two lines where there is no terminal


@contextmanager
def progress(label: str, total: int, unit: str = "parts") -> Iterator[Callable[..., None]]:
    """Gives `advance(rows, steps=1)`, to be called as work is done."""
    began = time.perf_counter()
    counts = {"rows": 0, "steps": 0}
    with _bar(label, total, unit) if sys.stderr.isatty() else _lines(label, total, unit) as show:

        def advance(rows: int = 0, steps: int = 1) -> None:
            counts["rows"] += rows
            counts["steps"] += steps
            show(counts["steps"], counts["rows"] / max(time.perf_counter() - began, 1e-9))

        yield advance
    seconds = time.perf_counter() - began
    rate = f", {counts['rows'] / seconds:,.0f} rows/s" if counts["rows"] else ""
    log.info("%s: %d %s in %.1f s%s", label, counts["steps"], unit, seconds, rate)


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int, float], None]]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description:>12}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn(f"{unit} {{task.fields[rate]}}"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("eta"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=total, rate="")
        yield lambda steps, rate: bars.update(
            bar, completed=steps, rate=f"{rate:,.0f} rows/s" if rate else ""
        )


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[Callable[[int, float], None]]:
    began = last = time.perf_counter()

    def show(steps: int, rate: float) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last < EVERY_S:
            return
        last = now
        remaining = (now - began) / steps * (total - steps)
        pace = f", {rate:,.0f} rows/s" if rate else ""
        log.info(
            "%s: %d of %d %s%s, about %.0f s to go", label, steps, total, unit, pace, remaining
        )

    yield show
