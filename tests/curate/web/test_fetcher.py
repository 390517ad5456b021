"""A worker's fetcher: calls from several threads, memory, politeness, the watchdog."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.web.fetch import STALLED, Fetched
from tests.fault_server import fault_server, forbidden
from tests.fetching import config, fetch, fetcher


@pytest.fixture(scope="module")
def web():
    with fault_server() as server:
        yield server


def test_two_calls_at_a_time_get_their_own_ends(web):
    """Two threads may use one fetcher at once."""
    parts = [[web.image(f"/{part}/{i}.jpg", seed=i) for i in range(20)] for part in "ab"]
    with fetcher(config(web)) as way, ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda urls: fetch(urls, way), parts))
    for part, results in zip("ab", both, strict=True):
        bodies = [web.files[f"/{part}/{i}.jpg"][1] for i in range(20)]
        assert [got.body for got in results] == bodies


def test_two_calls_share_the_open_requests():
    """`concurrency` is of the worker, not of the part."""
    with fault_server() as web:
        parts = [[web.image(f"/{part}/{i}.jpg", seed=i) for i in range(30)] for part in "ab"]
        with fetcher(config(web, concurrency=2)) as way, ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda urls: fetch(urls, way), parts))
        assert web.most_open <= 2


def test_connections_and_robots_txt_are_kept_between_calls():
    """A second part asks for no robots.txt again."""
    with fault_server() as web, fetcher(config(web)) as way:
        for i in range(3):
            fetch([web.image(f"/{i}.jpg", seed=i)], way)
        assert web.hits["/robots.txt"] == 1


def test_a_caller_with_a_running_loop_of_its_own_is_served(web):
    """The fetcher's loop is in a thread of its own."""
    url = web.image("/loop_of_its_own.jpg")

    async def caller() -> list[Fetched]:
        return fetch([url], config(web))

    assert asyncio.run(caller())[0].error is None


def test_what_the_consumer_raises_ends_its_call_and_no_other(web):
    """An error of `on_done` comes out as it was raised; another call goes on to its end."""
    slow = [web.url(f"/drip?every=0.5&{i}") for i in range(3)]
    good = web.image("/x.jpg")

    async def broken(_: int, __: Fetched) -> None:
        raise KeyError("disk full")

    with fetcher(config(web, deadline_s=1)) as way, ThreadPoolExecutor(1) as thread:
        other = thread.submit(fetch, [*slow, good], way)
        with pytest.raises(KeyError, match="disk full"):
            way.fetch_all([good, web.url("/silent")], broken)
        assert [got.error for got in other.result()] == [*["timed out"] * 3, None]
        assert fetch([good], way)[0].error is None


def test_a_closed_fetcher_says_so(web):
    """After `close`, which may be called twice, nothing is fetched."""
    with fetcher(config(web)) as way:
        pass
    way.close()
    with pytest.raises(RuntimeError, match="this Fetcher is closed"):
        fetch([web.url("/x.jpg")], way)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [({"allow_hosts": ("http://a",)}, "allow_hosts has"), ({"contact": "a\nb"}, "user_agent and")],
)
def test_a_config_that_cannot_work_is_refused_at_once(web, knobs, message):
    """Not row by row."""
    with pytest.raises(ValueError, match=message), fetcher(config(web, **knobs)):
        pass


def test_a_hanging_consumer_is_cancelled_and_its_rows_are_named(web):
    """`on_done` that never ends, behind a thread that never returns, does not block the part: what
    ended stays, what hung is returned, what was on its way is told that it stalled.
    """
    urls = [web.image("/stall.jpg"), web.image("/stall_too.jpg"), web.url("/silent")]
    told: dict[int, str | None] = {}
    never = threading.Event()

    async def keep(index: int, fetched: Fetched) -> None:
        if index == 1:
            await asyncio.get_running_loop().run_in_executor(None, never.wait)
        told[index] = fetched.error

    with fetcher(config(web, stall_s=0.5, deadline_s=60, timeout_s=60)) as way:
        assert way.fetch_all(urls, keep) == [1]
        never.set()
    assert told == {0: None, 2: STALLED}


def test_a_call_in_which_nothing_ends_is_ended(web):
    """URLs that are at work for `stall_s` without one ending get the error, all of them."""
    urls = [web.url(f"/silent/{i}") for i in range(4)]
    with fetcher(config(web, stall_s=0.4, deadline_s=60, timeout_s=60, robots_txt=False)) as way:
        assert [got.error for got in fetch(urls, way)] == [STALLED] * 4


def test_waiting_for_a_turn_is_no_stall(web):
    """At a slow rate a part takes its time, longer than `stall_s` between two ends."""
    urls = [web.image(f"/rate/{i}.jpg", seed=i) for i in range(3)]
    with fetcher(config(web, stall_s=0.2, per_host_rate=2, robots_txt=False)) as way:
        assert [got.error for got in fetch(urls, way)] == [None] * 3


def test_a_consumer_that_hangs_on_what_stalled_is_left_as_well(web):
    """Then every row is in the returned list."""

    async def keep(_: int, __: Fetched) -> None:
        await asyncio.Event().wait()

    with fetcher(config(web, stall_s=0.3, deadline_s=60, timeout_s=60, robots_txt=False)) as way:
        urls = [web.image("/hang.jpg"), web.url("/silent")]
        assert way.fetch_all(urls, keep) == [0, 1]


def test_bodies_in_memory_are_bounded_by_their_bytes():
    """A consumer that does not return holds the fetching up at `buffer_bytes`, and nothing times
    out or deadlocks meanwhile.
    """
    with fault_server() as web:
        body = bytes(300_000)
        urls = [web.serve(f"/{i}.jpg", body) for i in range(30)]
        held = most = 0

        async def keep(_: int, fetched: Fetched) -> None:
            nonlocal held, most
            assert fetched.error is None
            held += len(fetched.body or b"")
            most = max(most, held)
            await asyncio.sleep(0.05)  # longer, all in all, than the deadline
            held -= len(fetched.body or b"")

        knobs = config(web, buffer_bytes=500_000, deadline_s=0.7, timeout_s=0.5)
        with fetcher(knobs) as way:
            assert way.fetch_all(urls, keep) == []
            room = way._visits.room
            assert (room.free, room.holders, room.waiting) == (500_000, {}, set())
        assert 300_000 <= most <= 500_000 + 300_000


def test_a_body_larger_than_the_room_still_comes(web):
    """`buffer_bytes` below one body is no deadlock."""
    urls = [web.serve(f"/large/{i}", bytes(200_000)) for i in range(6)]
    results = fetch(urls, config(web, buffer_bytes=1000))
    assert [len(got.body or b"") for got in results] == [200_000] * 6


def test_concurrency_is_bounded_per_host():
    """Never more requests of a host are open than `per_host` says."""
    with fault_server() as web:
        urls = [web.image(f"/{i}.jpg", seed=i) for i in range(40)]
        fetch(urls, config(web, per_host=3))
        assert 1 <= web.most_open <= 3


def test_one_turn_is_enough_for_a_redirect_to_the_same_host_and_its_robots_txt(web):
    """With `per_host` of one, nothing waits for itself."""
    web.image("/behind.jpg")
    urls = [web.url(f"/redirect?to=/behind.jpg&{i}") for i in range(3)]
    assert [got.error for got in fetch(urls, config(web, per_host=1, concurrency=1))] == [None] * 3


def test_a_slow_host_does_not_keep_others_from_their_turn(web):
    """URLs that wait for a slow host take no open request from another one."""
    with fault_server() as slow:
        knobs = config(web, allow_hosts=(web.address, f"localhost:{slow.port}"), per_host=2)
        urls = [f"http://localhost:{slow.port}/silent/{i}" for i in range(50)]
        good = [web.image(f"/quick/{i}.jpg", seed=i) for i in range(20)]
        ends: list[int] = []

        async def keep(index: int, _: Fetched) -> None:
            ends.append(index)

        knobs = knobs.model_copy(update={"concurrency": 4, "give_up_host_after": 4, "retries": 0})
        with fetcher(knobs.model_copy(update={"robots_txt": False})) as way:
            way.fetch_all(urls + good, keep)
        assert sorted(ends[:20]) == list(range(50, 70))


def test_robots_txt_is_obeyed_unless_it_is_switched_off():
    """A disallowed path is a row's error, and the server never sees the request."""
    with fault_server() as web:
        web.serve("/robots.txt", b"User-agent: curate\nDisallow: /private\n", "text/plain")
        urls = [web.image("/private/a.jpg"), web.image("/public/b.jpg")]
        urls.append(web.url("/redirect?to=/private/a.jpg"))
        private, public, led_there = fetch(urls, config(web))
        assert "robots.txt" in (private.error or "")
        assert private.error == led_there.error
        assert public.error is None
        assert web.hits["/private/a.jpg"] == 0
        assert [got.error for got in fetch(urls, config(web, robots_txt=False))] == [None] * 3


def test_a_robots_txt_that_cannot_be_had_forbids_all():
    """A server that fails on it is not asked for images."""
    with fault_server() as web:
        web.instead["/robots.txt"] = "/status/503"
        (got,) = fetch([web.image("/a.jpg")], config(web))
        assert (got.error or "").startswith("robots.txt cannot be had: HTTP Error 503")
        assert web.hits["/a.jpg"] == 0


def test_the_blocklist_holds_for_every_hop(tmp_path):
    """A blocked URL is never asked for, neither at first nor behind a redirect."""
    with fault_server() as web:
        blocked = web.image("/blocked.jpg")
        listed = tmp_path / "list.txt"
        listed.write_text(f"url {blocked}\nhost blocked.example\n")
        urls = [blocked, web.url("/redirect?to=/blocked.jpg"), "http://a.blocked.example/x.jpg"]
        results = fetch(urls, config(web, blocklist=(str(listed),)))
        assert all("blocklist" in (got.error or "") for got in results)
        assert web.hits["/blocked.jpg"] == 0


def test_requests_are_honest_and_carry_no_cookies():
    """The agent and its contact are sent, no encoding is asked for, and no cookie."""
    with fault_server() as web:
        fetch([web.image("/agent.jpg")], config(web, contact="https://example.org/crawl"))
        agent = "curate/0.1 (image-text dataset curation; +https://example.org/crawl)"
        assert web.user_agents == {agent}
        assert all("Cookie" not in headers for headers in web.request_headers)
        assert all(h["Accept-Encoding"] == "identity" for h in web.request_headers)


def test_a_host_that_does_not_answer_is_given_up():
    """After so many failures in a row its URLs end at once, untried; other hosts go on."""
    with forbidden() as other:
        dead = other.port
    with fault_server() as web:
        knobs = {"give_up_host_after": 4, "per_host": 1, "robots_txt": False, "retries": 0}
        urls = [f"http://127.0.0.2:{dead}/{i}.jpg" for i in range(10)]
        good = web.image("/alive.jpg")
        results = fetch([*urls, good], config(web, allow_hosts=(web.address, "127.0.0.2"), **knobs))
        errors = [got.error for got in results]
        assert errors == [
            *["connection refused"] * 4,
            *["host gave up: connection refused"] * 6,
            None,
        ]
        assert [got.attempts for got in results] == [*[1] * 4, *[0] * 6, 1]


def test_a_part_of_ten_thousand_urls_ends_and_leaves_nothing_behind(web):
    """Every URL is told once, and the fetcher keeps no trace of them."""
    url = web.image("/many.jpg")
    urls = [url if i % 100 == 0 else f"ftp://host{i}.example/" for i in range(10_000)]
    with fetcher(config(web)) as way:
        results = fetch(urls, way)
        assert sum(got.error is None for got in results) == 100
        assert not way._visits.lines._lines
        assert way._visits.room.free == way.config.buffer_bytes
