"""What all workers share: grants and the report, called from several threads."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter

from curate.web.dispatch import Dispatcher
from curate.web.tally import Tally


def news(**rows: str | None) -> dict:
    tally = Tally()
    for host, error in rows.items():
        tally.row(host, error, 1_000_000, 1.0)
    return tally.take()


def test_an_exchange_grants_and_takes_the_news():
    """One call does both, and its answer can travel."""
    dispatcher = Dispatcher(per_host=2)
    grants, _ = dispatcher.exchange("w", {}, {"a": 3}, news(a=None, b="timed out"))
    assert grants == {"a": (2, 2)}
    assert pickle.loads(pickle.dumps(grants)) == grants
    assert dispatcher.exchange("w", {"a": 2}, {}, {}) == ({}, {})
    report = dispatcher.report()
    assert (report["rows"], report["successes"], report["bytes"]) == (2, 1, 2_000_000)
    assert report["errors"] == {"timed out": 1}


def test_a_paused_host_is_granted_to_nobody_until_its_time_is_over():
    """Who holds or wants it is told for how long, and why; then it is granted again."""
    now = [100.0]
    dispatcher = Dispatcher(per_host=2, clock=lambda: now[0])
    dispatcher.exchange("w", {"a": 1}, {}, {}, {"a": (60.0, "busy")})
    told = {"a": (60.0, "busy")}
    assert dispatcher.exchange("other", {}, {"a": 1, "b": 1}, {}) == ({"b": (1, 2)}, told)
    assert dispatcher.exchange("holder", {"a": 1}, {}, {})[1] == told
    now[0] += 60
    assert dispatcher.exchange("later", {}, {"a": 1}, {}) == ({"a": (1, 2)}, {})


def test_a_rate_reaches_the_limits():
    """With a rate only one request may begin at once, and no permit is kept."""
    dispatcher = Dispatcher(per_host=16, rate=0.5)
    assert dispatcher.exchange("w", {}, {"a": 3}, {})[0] == {"a": (1, 0)}


def test_the_report_is_json_with_recent_rates():
    """Its rates are those since the last reports, not since the beginning."""
    now = [100.0]
    dispatcher = Dispatcher(per_host=2, clock=lambda: now[0])
    dispatcher.exchange("w", {}, {}, news(a=None, b=None))
    now[0] = 102.0
    first = json.loads(json.dumps(dispatcher.report()))
    assert (first["seconds"], first["rows_per_s"], first["bytes_per_s"]) == (2.0, 1.0, 1e6)
    assert first["line"] == "1 rows/s, 1.0 MB/s, 100 % ok"
    for now[0] in (110.0, 120.0, 130.0):
        last = dispatcher.report()
    assert last["rows_per_s"] == 0
    assert last["line"] == "0 rows/s, 0.0 MB/s, 100 % ok"
    assert last["rows"] == 2


def test_many_threads_never_hold_more_than_the_limit():
    """Exchanges of workers in threads of their own never add up to more than per_host."""
    dispatcher = Dispatcher(per_host=3)
    held: Counter[str] = Counter()
    lock, most, served = threading.Lock(), [], Counter()

    def work(name: str) -> None:
        for _ in range(300):
            grants, _ = dispatcher.exchange(name, {}, {"a": 2}, news(a=None))
            mine = grants["a"][0]
            with lock:
                held[name] = mine
                served[name] += mine
                most.append(held.total())
            with lock:
                held[name] = 0

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
        dispatcher.report()
    for thread in threads:
        thread.join()
    assert max(most) <= 3
    assert served.total() > 300
    assert dispatcher.report()["rows"] == 1200
