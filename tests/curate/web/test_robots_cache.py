"""Verdicts by robots.txt: one fetch per origin, what its failures mean, how long it is kept."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from curate.web import robots as robots_module
from curate.web.robots import DISALLOWED, Answer, Robots


class Web:
    """Robots.txt files by host, and what was asked for."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, url: URL) -> Answer:
        self.asked.append(str(url))
        await self.gate.wait()
        return self.answers[str(url.host)]


FORBIDS = Answer(200, b"User-agent: *\nDisallow: /private", None)


def verdicts(web: Web, *urls: str, **knobs) -> list[str | None]:
    async def run() -> list[str | None]:
        robots = Robots(web.get, "curate", **knobs)
        return [await robots.verdict(URL(url)) for url in urls]

    return asyncio.run(run())


def test_an_origin_is_asked_once():
    """Scheme, host and port make an origin; its paths, queries and users share the answer."""
    web = Web(a=FORBIDS, b=FORBIDS)
    urls = (
        *("http://a/x", "http://u:p@a/private?q", "http://a:80/privately", "https://a/x"),
        *("http://a:8080/x", "http://b/x", "http://a"),
    )
    assert verdicts(web, *urls) == [None, DISALLOWED, DISALLOWED, None, None, None, None]
    assert web.asked == [
        *("http://a/robots.txt", "https://a/robots.txt"),
        *("http://a:8080/robots.txt", "http://b/robots.txt"),
    ]


def test_robots_txt_itself_may_always_be_fetched():
    """It is not asked for to find that out."""
    web = Web(a=Answer(200, b"User-agent: *\nDisallow: /", None))
    assert verdicts(web, "http://a/robots.txt") == [None]
    assert web.asked == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404, b"", "HTTP Error 404: Not Found"), None),
        (Answer(403, b"", "HTTP Error 403: Forbidden"), None),
        (Answer(302, b"", "too many redirects"), None),
        (Answer(204, b"", None), None),
        (Answer(503, b"", "HTTP Error 503: Busy"), "HTTP Error 503: Busy"),
        (Answer(500, b"User-agent: *\nAllow: /", None), "HTTP Error 500"),
        (Answer(429, b"", "HTTP Error 429: Slow"), "HTTP Error 429: Slow"),
        (Answer(None, b"", "timed out"), "timed out"),
        (Answer(None, b"", "connection refused"), "connection refused"),
        (Answer(200, b"", "body shorter than declared"), "body shorter than declared"),
        (
            Answer(200, b"User-agent: *" + b"\nAllow: /*x" * 2001, None),
            "more than 2000 patterns",
        ),
    ],
)
def test_what_cannot_be_had_forbids_and_what_is_not_there_allows(answer, error):
    """Section 2.3.1: 4xx has no rules; errors of server and network forbid all, with their name."""
    told = error and f"robots.txt cannot be had: {error}"
    assert verdicts(Web(a=answer), "http://a/x") == [told]


def test_answers_are_kept_for_their_time():
    """Rules for the ttl, failures for a minute."""
    now = [0.0]
    web = Web(a=FORBIDS, b=Answer(503, b"", None))

    async def run() -> None:
        robots = Robots(web.get, "curate", ttl_s=1000, clock=lambda: now[0])
        for moment, asked in ((0, 2), (59, 2), (61, 3), (999, 4), (1001, 5)):
            now[0] = moment
            await robots.verdict(URL("http://a/x"))
            await robots.verdict(URL("http://b/x"))
            assert len(web.asked) == asked, moment

    asyncio.run(run())


def test_a_host_that_is_back_is_believed_again():
    """After the minute a failing robots.txt that has come up gives its rules."""
    now = [0.0]
    web = Web(a=Answer(None, b"", "timed out"))

    async def run() -> None:
        robots = Robots(web.get, "curate", clock=lambda: now[0])
        assert await robots.verdict(URL("http://a/x")) == "robots.txt cannot be had: timed out"
        web.answers["a"] = FORBIDS
        now[0] = 61
        assert await robots.verdict(URL("http://a/x")) is None
        assert await robots.verdict(URL("http://a/private")) == DISALLOWED

    asyncio.run(run())


def test_one_fetch_serves_all_who_wait_even_when_the_first_gives_up():
    """Concurrent verdicts of an origin share a fetch; a cancelled one does not stop it."""
    web = Web(a=FORBIDS)

    async def run() -> None:
        web.gate.clear()
        robots = Robots(web.get, "curate")
        tasks = [asyncio.create_task(robots.verdict(URL(f"http://a/private{i}"))) for i in range(5)]
        while not web.asked:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        web.gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [DISALLOWED] * 4

    asyncio.run(run())
    assert web.asked == ["http://a/robots.txt"]


def test_an_error_of_our_own_reaches_those_who_wait_and_is_not_kept():
    """`get` raises where no answer can be given at all; the next verdict asks again."""
    calls = []

    async def get(url: URL) -> Answer:
        calls.append(url)
        if len(calls) == 1:
            raise RuntimeError("no dispatcher")
        return FORBIDS

    async def run() -> None:
        robots = Robots(get, "curate")
        both = [robots.verdict(URL("http://a/x")) for _ in range(2)]
        errors = await asyncio.gather(*both, return_exceptions=True)
        assert [str(error) for error in errors] == ["no dispatcher"] * 2
        assert await robots.verdict(URL("http://a/private")) == DISALLOWED

    asyncio.run(run())
    assert len(calls) == 2


def test_the_least_recently_used_origins_are_forgotten():
    """At most max_hosts are kept."""
    web = Web(a=FORBIDS, b=FORBIDS, c=FORBIDS)
    verdicts(web, *(f"http://{host}/x" for host in "abacab"), max_hosts=2)
    assert [url[7] for url in web.asked] == ["a", "b", "c", "b"]


def test_huge_files_of_many_hosts_are_forgotten_first(monkeypatch):
    """All rules together are bounded, too; the newest file is kept whatever its size."""
    monkeypatch.setattr(robots_module, "MAX_RULES", 150)
    lines = b"".join(b"Disallow: /private%d\n" % i for i in range(200))
    few, many = b"User-agent: *\n" + lines[:2400], b"User-agent: *\nDisallow: /private\n" + lines
    web = Web(a=Answer(200, few, None), b=Answer(200, many, None))
    urls = ("http://a/x", "http://b/x", "http://b/private", "http://a/x")
    assert verdicts(web, *urls)[2] == DISALLOWED
    assert [url[7] for url in web.asked] == ["a", "b", "a"]


def test_closing_cancels_what_is_under_way():
    """No fetch stays behind, and who waits for it is not left waiting."""
    web = Web(a=FORBIDS)

    async def run() -> None:
        web.gate.clear()
        robots = Robots(web.get, "curate")
        task = asyncio.create_task(robots.verdict(URL("http://a/x")))
        while not web.asked:
            await asyncio.sleep(0)
        await robots.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
