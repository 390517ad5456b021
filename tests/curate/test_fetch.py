"""Fetching from a server with every fault."""

from __future__ import annotations

import asyncio
import time

import pytest

from curate.fetch import ROBOTS, Fetched, fetch_all
from schemas.configs import DownloadConfig
from tests.fault_server import FaultServer, fault_server, forbidden, picture


@pytest.fixture(scope="module")
def web():
    with fault_server() as server:
        yield server


def config(web: FaultServer, **knobs) -> DownloadConfig:
    quick = {"timeout_s": 2, "deadline_s": 2, "retries": 1, "retry_wait_s": 0.01}
    return DownloadConfig(**(quick | {"allow_hosts": (web.address,)} | knobs))


def fetch(urls: list[str], knobs: DownloadConfig) -> list[Fetched]:
    results: dict[int, Fetched] = {}

    async def keep(index: int, fetched: Fetched) -> None:
        assert index not in results
        results[index] = fetched

    asyncio.run(fetch_all(urls, knobs, keep))
    return [results[i] for i in range(len(urls))]


def test_a_body_comes_with_its_status_attempts_and_address(web):
    """A good URL gives its bytes, the status, one attempt and where they came from."""
    url = web.image("/good.jpg", seed=1)
    (got,) = fetch([url], config(web))
    assert got.body == web.files["/good.jpg"][1]
    assert (got.error, got.status, got.attempts, got.final_url) == (None, 200, 1, url)
    assert 0 < got.seconds < 2


def test_two_urls_with_one_basename_give_their_own_bytes(web):
    """Bodies belong to URLs, not to file names."""
    urls = [web.image("/a/photo.jpg", seed=1), web.image("/b/photo.jpg", seed=2)]
    first, second = fetch(urls, config(web))
    assert first.body == web.files["/a/photo.jpg"][1]
    assert second.body == web.files["/b/photo.jpg"][1]
    assert first.body != second.body


@pytest.mark.parametrize(
    ("path", "error", "attempts"),
    [
        ("/status/404", "HTTP Error 404: Not Found", 1),
        ("/status/410", "HTTP Error 410: Gone", 1),
        ("/status/403", "HTTP Error 403: Forbidden", 1),
        ("/status/503", "HTTP Error 503: Service Unavailable", 2),
        ("/says_huge", "body larger than 1000000 bytes", 1),
        ("/endless", "body larger than 1000000 bytes", 1),
        ("/bomb", "body larger than 1000000 bytes", 1),
        ("/false_gzip", "body is not in its declared encoding", 1),
        ("/cut", "body shorter than declared", 2),
        ("/loop", "too many redirects", 1),
        ("/reset", "connection reset", 2),
        ("/hang_up", "connection reset", 2),
        ("/long_header", "malformed answer", 1),
        ("/garbage", "malformed answer", 1),
        ("/redirect?to=file:///etc/passwd", "scheme file is not allowed", 1),
        ("/redirect?to=http://[::1", "not a URL", 1),
        ("/robots?tag=noai", ROBOTS, 1),
        ("/later?s=3600", "HTTP Error 429: Too Many Requests", 1),
    ],
)
def test_every_fault_is_a_short_error_and_some_are_tried_again(web, path, error, attempts):
    """A fault gives its own text; only broken connections and 5xx get a second attempt."""
    (got,) = fetch([web.url(path)], config(web, max_bytes=1_000_000))
    assert (got.body, got.error, got.attempts) == (None, error, attempts)


@pytest.mark.parametrize("path", ["/silent", "/drip"])
def test_a_deadline_ends_what_would_never_end(web, path):
    """A server that never answers, or one byte at a time, costs the deadline per attempt."""
    began = time.monotonic()
    (got,) = fetch([web.url(path)], config(web, deadline_s=0.3))
    assert (got.error, got.attempts) == ("timed out", 2)
    assert time.monotonic() - began < 2


def test_silence_between_two_reads_times_out_before_the_deadline(web):
    """`timeout_s` bounds the wait for the next byte."""
    (got,) = fetch([web.url("/silent/b")], config(web, timeout_s=0.2, deadline_s=30, retries=0))
    assert got.error == "timed out"
    assert got.seconds < 5


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("file:///etc/passwd", "scheme file is not allowed"),
        ("data:image/png;base64,iVBORw0KGgo=", "scheme data is not allowed"),
        ("ftp://127.0.0.1/a.jpg", "scheme ftp is not allowed"),
        ("/a.jpg", "no scheme"),
        ("", "no scheme"),
        ("http:///a.jpg", "no host"),
        ("http://127.0.0.1:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://127.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://10.1.2.3/", "address 10.1.2.3 is not public"),
        ("http://[::1]/", "address ::1 is not public"),
        ("http://[::ffff:127.0.0.1]/", "address ::ffff:127.0.0.1 is not public"),
        ("http://localhost:1/", "is not public"),
        ("http://2130706433/", "host 2130706433 is an odd spelling of an address"),
        ("http://0x7f000001/", "host 0x7f000001 is an odd spelling of an address"),
        ("http://0177.0.0.1/", "host 0177.0.0.1 is an odd spelling of an address"),
        ("http://127.1/", "host 127.1 is an odd spelling of an address"),
        ("http://①②⑦.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://user:pw@127.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://a\x00b/", "not a URL"),
        ("http://a b/", "not a URL"),
    ],
)
def test_urls_that_lead_nowhere_allowed_are_refused_before_anything_is_sent(url, error):
    """Other schemes, private addresses in any spelling and what is no URL fail at once."""
    (got,) = fetch([url], DownloadConfig(retries=3))
    assert error in (got.error or "")
    assert (got.body, got.attempts, got.status) == (None, 1, None)


def test_a_redirect_to_an_address_that_is_not_allowed_sends_nothing_there(web):
    """Only 127.0.0.1:PORT is allowed: a redirect to 127.0.0.2 is refused before connecting."""
    with forbidden() as other:
        (got,) = fetch([web.url(f"/redirect?to={other.url}")], config(web))
        assert got.error == "address 127.0.0.2 is not public"
        assert got.final_url == other.url
        assert other.visits() == 0


def test_the_port_of_an_allowed_host_is_part_of_the_permission(web):
    """127.0.0.1:PORT allows no other port of 127.0.0.1."""
    (got,) = fetch(["http://127.0.0.1:1/x.jpg"], config(web))
    assert got.error == "address 127.0.0.1 is not public"


def test_a_redirect_is_followed_to_an_allowed_address(web):
    """A relative redirect gives the bytes and the address that they came from."""
    web.image("/moved.jpg", seed=4)
    (got,) = fetch([web.url("/redirect?to=/moved.jpg")], config(web))
    assert got.body == web.files["/moved.jpg"][1]
    assert got.final_url == web.url("/moved.jpg")


def test_an_allowed_name_may_resolve_to_a_private_address(web):
    """`localhost` is reached when it is named, through the resolver."""
    web.image("/named.jpg", seed=4)
    url = f"http://localhost:{web.port}/named.jpg"
    (got,) = fetch([url], config(web, allow_hosts=(f"localhost:{web.port}",)))
    assert got.body == web.files["/named.jpg"][1]


@pytest.mark.parametrize("path", ["/flaky/once", "/busy/once"])
def test_what_fails_once_and_then_works_succeeds(web, path):
    """500, or 429 with a Retry-After, then 200: two attempts and a body."""
    (got,) = fetch([web.url(path)], config(web))
    assert (got.body, got.attempts, got.error) == (picture(7), 2, None)
    assert (got.seconds >= 1) == path.startswith("/busy")


def test_a_compressed_body_is_unpacked(web):
    """Content-Encoding is undone before the bytes are handed over."""
    (got,) = fetch([web.url("/zipped")], config(web))
    assert got.body == picture(5)


@pytest.mark.parametrize(
    ("tag", "stops"),
    [
        ("noindex, nofollow", True),
        ("NoAI", True),
        ("curate: noimageai", True),
        ("otherbot: noai", False),
        ("otherbot: nofollow, noai", False),
        ("nofollow", False),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", False),
    ],
)
def test_x_robots_tag_is_obeyed_when_it_speaks_to_us(web, tag, stops):
    """A directive to all robots or to ours stops the image, one to another robot does not."""
    (got,) = fetch([web.url(f"/robots?tag={tag}")], config(web))
    assert got.error == (ROBOTS if stops else None)


def test_no_directives_ignores_the_tag(web):
    """An empty list of directives switches the check off."""
    (got,) = fetch([web.url("/robots?tag=noai")], config(web, disallowed_header_directives=()))
    assert got.error is None


def test_requests_are_honest_and_carry_no_cookies(web):
    """The configured user agent is sent, and no cookie."""
    fetch([web.image("/agent.jpg")], config(web, user_agent="curate-test/1"))
    assert "curate-test/1" in web.user_agents
    assert all("Cookie" not in headers for headers in web.request_headers)


def test_concurrency_is_bounded_per_host_and_in_all():
    """Never more requests are open than `per_host` and `concurrency` say."""
    with fault_server() as web:
        urls = [web.image(f"/{i}.jpg", seed=i) for i in range(40)]
        fetch(urls, config(web, per_host=3))
        assert web.most_open <= 3
        fetch(urls, config(web, concurrency=2))
        assert web.most_open <= 3


def test_a_slow_reader_slows_the_fetching():
    """No more than 2 x concurrency bodies are fetched ahead of a consumer that does not return."""
    with fault_server() as web:
        urls = [web.image(f"/{i}.jpg", seed=i) for i in range(60)]
        held = most = 0

        async def run() -> None:
            gate = asyncio.Event()

            async def keep(_: int, fetched: Fetched) -> None:
                nonlocal held, most
                held += 1
                most = max(most, held)
                if held == 6:
                    asyncio.get_running_loop().call_later(0.2, gate.set)
                await gate.wait()
                held -= 1

            await fetch_all(urls, config(web, concurrency=3), keep)

        asyncio.run(run())
        assert most == 6


def test_bad_urls_do_not_stop_good_ones(web):
    """Every URL of a bad list gets its own end, and the good ones their bytes."""
    bad = [
        "\ud800",
        "http://",
        "https://127.0.0.1:1/",
        "http://a b/",
        "javascript:alert(1)",
        "http://\\/",
    ]
    good = [web.image(f"/among/{i}.jpg", seed=i) for i in range(5)]
    results = fetch(bad + good, config(web, deadline_s=5))
    assert all(r.error and r.body is None for r in results[: len(bad)])
    assert [r.body for r in results[len(bad) :]] == [
        web.files[f"/among/{i}.jpg"][1] for i in range(5)
    ]


def test_what_the_consumer_raises_ends_the_fetch(web):
    """An error of `on_done` is the caller's: it comes out as it was raised."""

    async def keep(_: int, __: Fetched) -> None:
        raise KeyError("disk full")

    with pytest.raises(KeyError, match="disk full"):
        asyncio.run(fetch_all([web.image("/x.jpg")], config(web), keep))


def test_a_connection_refused_says_so(web):
    """A closed port is an error of its own, tried again."""
    with forbidden() as other:
        url = other.url
    (got,) = fetch([url], config(web, allow_hosts=("127.0.0.2",)))
    assert (got.error, got.attempts) == ("connection refused", 2)
