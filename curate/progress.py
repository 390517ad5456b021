"""Progress of long work: a bar with rate and remaining time on a terminal, a line every few seconds
elsewhere.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
EVERY_S = 10.0  # between two lines where there is no terminal
LIVE_S = 1.0  # between two looks at work that tells how far it is
Live = Callable[[], tuple[float, str]]  # the share that is done, 0..1, and words about it
Show = Callable[[float, str], None]  # steps done, words


@contextmanager
def progress(
    label: str, total: int, unit: str = "parts", live: Live | None = None
) -> Iterator[Callable[..., None]]:
    """Gives `advance(rows, steps=1)`, to be called as work is done.

    live: asked every second, so that the line moves while no step ends.
    """
    began = time.perf_counter()
    counts = {"rows": 0, "steps": 0}
    with _bar(label, total, unit) if sys.stderr.isatty() else _lines(label, total, unit) as show:

        def advance(rows: int = 0, steps: int = 1) -> None:
            counts["rows"] += rows
            counts["steps"] += steps
            rate = counts["rows"] / max(time.perf_counter() - began, 1e-9)
            if live is None:
                show(counts["steps"], f"{rate:,.0f} rows/s" if counts["rows"] else "")

        with _looking(live, total, show):
            yield advance
    seconds = time.perf_counter() - began
    rate = f", {counts['rows'] / seconds:,.0f} rows/s" if counts["rows"] else ""
    log.info("%s: %d %s in %.1f s%s", label, counts["steps"], unit, seconds, rate)


@contextmanager
def _looking(live: Live | None, total: int, show: Show) -> Iterator[None]:
    """A thread that shows how far the work is, for as long as the block."""
    if live is None:
        yield
        return
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LIVE_S):
            share, words = live()
            show(share * total, words)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Show]:
    from rich import progress as rich
    from rich.console import Console
    from rich.markup import escape

    columns = (
        rich.TextColumn("{task.description:>12}"),
        rich.BarColumn(bar_width=20),
        rich.TextColumn(f"{{task.fields[steps]}} of {total} {unit} {{task.fields[words]}}"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("eta"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=total, steps=0, words="")
        yield lambda steps, words: bars.update(
            bar, completed=steps, steps=int(steps), words=escape(words)
        )


@contextmanager
def _lines(label: str, total: int, unit: str) -> Iterator[Show]:
    began = last = time.perf_counter()

    def show(steps: float, words: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last < EVERY_S or not steps:
            return
        last = now
        left = f"about {(now - began) / steps * (total - steps):.0f} s to go"
        said = ", ".join(text for text in (words, left) if text)
        log.info("%s: %d of %d %s, %s", label, steps, total, unit, said)

    yield show
