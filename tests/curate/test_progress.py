"""progress: a line every few seconds where there is no terminal, and one at the end."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from curate.progress import progress


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "curate")
    return caplog


def test_the_end_is_told_with_the_rate(said):
    """Parts and rows are counted, and the seconds."""
    with progress("score", 3) as advance:
        for rows in (10, 20, 30):
            advance(rows)
    assert len(said.messages) == 1
    assert re.fullmatch(r"score: 3 parts in \d+\.\d s, [\d,]+ rows/s", said.messages[0])


def test_work_without_rows_has_no_rate(said):
    """Steps are told in their unit alone."""
    with progress("train", 4, "steps") as advance:
        advance(steps=4)
    assert re.fullmatch(r"train: 4 steps in \d+\.\d s", said.messages[0])


def test_long_work_tells_what_is_left(said, monkeypatch):
    """Once a line is due it says how far it is, the pace and the time to go."""
    monkeypatch.setattr("curate.progress.EVERY_S", 0)
    with progress("score", 4) as advance:
        advance(10)
    assert re.fullmatch(r"score: 1 of 4 parts, [\d,]+ rows/s, about \d+ s to go", said.messages[0])


def test_broken_work_does_not_say_that_it_is_done(said):
    """An error goes through, and no last line claims an end."""

    def broken() -> None:
        with progress("score", 2) as advance:
            advance(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert said.messages == []


def test_work_that_tells_how_far_it_is_is_shown_between_steps(said, monkeypatch):
    """The share and the words come from the work itself, while no step has ended."""
    monkeypatch.setattr("curate.progress.EVERY_S", 0)
    monkeypatch.setattr("curate.progress.LIVE_S", 0.01)
    asked = threading.Event()
    shares = iter([0.0, 0.5])

    def live() -> tuple[float, str]:
        share = next(shares, 0.75)
        if share == 0.75:
            asked.set()
        return share, "7 rows/s"

    with progress("download", 4, live=live) as advance:
        assert asked.wait(5)
        advance(10)
    first = said.messages[0]
    assert re.fullmatch(r"download: 2 of 4 parts, 7 rows/s, about \d+ s to go", first)
