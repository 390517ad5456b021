"""What came of requests: counts, the heaviest errors and hosts, lines for people."""

from __future__ import annotations

import json
import threading

import pytest

from curate.web.tally import FEW, OTHERS, Tally


def some() -> Tally:
    tally = Tally()
    for _ in range(91):
        tally.row("a.example", None, 1_000_000, 0.5)
    for _ in range(5):
        tally.row("127.0.0.3", "HTTP Error 404: Not Found", 0, 3.2)
    for i in range(4):
        tally.row(f"one-off-{i}", f"error {i}", 0, 60.0)
    return tally


def test_rows_successes_and_bytes_are_counted():
    """A row without an error is a success."""
    tally = some()
    assert (tally.rows, tally.successes, tally.bytes) == (100, 91, 91_000_000)


def test_the_line_says_rates_share_error_and_slow_host():
    """Rates of the seconds given, the most frequent error, the slowest host with some requests."""
    assert some().line(2.0) == (
        "50 rows/s, 45.5 MB/s, 91 % ok; HTTP Error 404: Not Found 5 %; slow: 127.0.0.3 3.2 s"
    )
    assert some().line(0.05, before=(50, 90_000_000)).startswith("1 000 rows/s, 20.0 MB/s, 91 % ok")


def test_the_line_of_nothing_is_a_line():
    """Before the first row there is no division by zero, and no error to name."""
    assert Tally().line(0.0) == "0 rows/s, 0.0 MB/s"


def test_errors_and_hosts_come_in_order():
    """Errors by count; hosts by mean seconds, those with few requests behind the others."""
    tally = some()
    assert tally.top_errors(2) == [("HTTP Error 404: Not Found", 5), ("error 0", 1)]
    slowest = tally.slowest_hosts(3)
    assert [host for host, *_ in slowest] == ["127.0.0.3", "a.example", "one-off-0"]
    assert slowest[0] == ("127.0.0.3", 5, 5, pytest.approx(3.2))
    assert slowest[2][1] < FEW


def test_the_summary_is_json():
    """It has all counts and the top of errors and hosts."""
    summary = json.loads(json.dumps(some().summary(1)))
    assert summary == {
        "rows": 100,
        "successes": 91,
        "bytes": 91_000_000,
        "errors": {"HTTP Error 404: Not Found": 5},
        "slowest_hosts": [
            {"host": "127.0.0.3", "requests": 5, "failures": 5, "mean_seconds": 3.2},
        ],
    }


def test_news_add_up_to_the_whole():
    """What two workers take, in several goes and as JSON, makes the same tally elsewhere."""
    whole, total = Tally(), Tally()
    workers = [Tally(), Tally()]
    for i in range(200):
        facts = (f"host{i % 7}", f"error {i % 3}" if i % 2 else None, i, i / 10)
        whole.row(*facts)
        workers[i % 2].row(*facts)
        if i % 50 == 49:
            total.add(json.loads(json.dumps(workers[i // 50 % 2].take())))
    for worker in workers:
        total.add(worker.take())
        assert worker.take() == {}
    total.add({})
    assert total.top_errors(9) == whole.top_errors(9)
    assert (total.rows, total.successes, total.bytes) == (200, 100, whole.bytes)
    assert sorted(row[:3] for row in total.slowest_hosts(9)) == sorted(
        row[:3] for row in whole.slowest_hosts(9)
    )


def test_strangers_cannot_make_it_grow():
    """Of 50 000 errors and hosts the heaviest are kept, and the sums stay right."""
    tally = Tally(kept=100)
    for i in range(50_000):
        tally.row("busy.example", "timed out", 0, 1.0)
        tally.row(f"host{i}", f"error {i}", 0, 0.001)
    news = tally.take()
    assert len(news["errors"]) <= 201
    assert len(news["hosts"]) <= 201
    assert news["errors"]["timed out"] == 50_000
    assert sum(news["errors"].values()) == 100_000
    assert sum(requests for requests, *_ in news["hosts"].values()) == 100_000
    total = Tally(kept=100)
    total.add(news)
    assert total.top_errors(1) == [("timed out", 50_000)]
    assert total.slowest_hosts(1)[0][0] == "busy.example"
    assert OTHERS not in [host for host, *_ in total.slowest_hosts(1000)]
    assert total.top_errors(1000)[-1][0] == OTHERS


def test_what_strangers_write_is_cleaned_and_cut():
    """Control characters, line ends, surrogates and overlong texts do not reach a terminal."""
    tally = Tally()
    tally.row("h\x1b[31m\n" + "x" * 1000, "bad\r\n\x00\u202e\ud800 text" + "y" * 1000, 0, 1.0)
    ((text, _),) = tally.top_errors(1)
    ((host, *_),) = tally.slowest_hosts(1)
    assert text.startswith("bad      textyyy")
    assert len(text) == 160
    assert host.startswith("h [31m xxx")
    assert len(host) == 100
    text.encode()


def test_threads_may_count_together():
    """No row is lost between counting and taking."""
    tally, total = Tally(), Tally()
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set():
            total.add(tally.take())

    def count() -> None:
        for _ in range(5000):
            tally.row("a", None, 1, 0.1)

    taker = threading.Thread(target=take)
    counters = [threading.Thread(target=count) for _ in range(3)]
    for thread in (taker, *counters):
        thread.start()
    for thread in counters:
        thread.join()
    stop.set()
    taker.join()
    total.add(tally.take())
    assert (total.rows, total.bytes) == (15_000, 15_000)
