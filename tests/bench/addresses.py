"""Damaged URLs and robots.txt files, and all that reads them before a request. Nothing is sent."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from yarl import URL

from curate.web.blocklist import Blocklist, without_dots
from curate.web.dispatch import Dispatcher
from curate.web.failures import Failure, explained
from curate.web.robots import Rules
from curate.web.turns import Turns
from curate.web.urls import host_of, joined, parsed
from curate.web.visits import Visits
from schemas.configs import DownloadConfig
from tests.bench.mutations import mutated

WRITTEN = (
    "http://user:pw@www.example.org:8080/a/../b/%2e%2e/c%20d.jpg?x=1&y=%2F#top",
    "https://[2001:db8::1]:443/a.jpg",
    "http://bücher.example/straße/①.png",
    "//example.org/a", "../../x?y", "http://192.168.0.1/", "http://0x7f.1/", "http://[]@",
    "http://[];@h[a]:99999", "data:image/png;base64,iVBORw0KGgo=", "HTTP:\\\\h\\a%zz",
)  # fmt: skip
PIECES = (
    "http:", "https:", "//", "/", "\\", "@", ":", "[", "]", "::1", "%", "%00", "%2e", "..", ".",
    "?", "#", ";", "é", "①", "\0", "\n", " ", "\u202e", "99999", "a", "xn--a",
)  # fmt: skip
FILES = (
    b"User-agent: *\nDisallow: /private/*.jpg$\nAllow: /private/ok%2F%e3%83%84\n\n",
    b"\xef\xbb\xbfuser-agent: curate/2 # us\r\nuser-agent: other\rDisallow: /a?b=*&c\nHost: 1",
    b"User-Agent:a\nUser-Agent:curate\nDisallow:/*a*b*c*d$\nAllow:\nDisallow: " + b"*a" * 100,
    b"<html>Disallow: /</html>\n: /\nallow\n",
)
PATHS = ("/", "/private/x.jpg", "/private/ok%2F%E3%83%84", "/a?b=1&c", "/" + "abcd" * 2000)


def urls(seed: int) -> Callable[[int], str]:
    """Case number -> what came of a URL, and of the same text as a Location, damaged so."""
    config = DownloadConfig(retries=0)
    desk = Dispatcher(config.per_host)

    async def ask(*exchange: object) -> object:
        return desk.exchange(*exchange)

    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        listed.write_text("url http://www.example.org/c%20d.jpg?x=1\nhost blocked.example\n")
        blocklist = Blocklist((str(listed),))
    rules, loop = Rules.parse(FILES[0], "curate"), asyncio.new_event_loop()

    async def begin() -> Visits:
        return Visits(config, Turns(ask, "fuzz"), blocklist)

    visits = loop.run_until_complete(begin())

    async def both(case: int) -> str:
        text = _text(np.random.default_rng((seed, case)))
        led_to = _outcome(lambda: _checked(visits, rules, joined(URL("http://h/p/q"), text), text))
        return f"{_outcome(lambda: _first(visits, rules, text))}; led to: {led_to}"

    return lambda case: loop.run_until_complete(both(case))


def _text(rng: np.random.Generator) -> str:
    """A damaged URL, or pieces of URLs in a row."""
    if rng.random() < 0.5:
        text = "".join(rng.choice(PIECES) for _ in range(rng.integers(1, 8)))
        return f"http://{text}" if rng.random() < 0.6 else text
    body = mutated(rng, [url.encode() for url in WRITTEN])
    return body.decode("latin-1" if rng.random() < 0.5 else "utf-8", errors="surrogateescape")


def _first(visits: Visits, rules: Rules, text: str) -> str:
    target = visits.new(text).target
    return _checked(visits, rules, parsed(text) if target is None else target, text)


def _checked(visits: Visits, rules: Rules, target: URL, text: str) -> str:
    """All that is done with a URL before it is asked for."""
    visit = visits.new(text)
    visit.final_url = str(target)
    visits._check(target, visit)
    target.origin().with_path("/robots.txt")
    if without_dots(target.raw_path) != target.raw_path or not host_of(target):
        return "wrong"
    return "may be asked" if rules.allows(target.raw_path_qs) else "forbidden by robots.txt"


def _outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except (Failure, OSError) as error:
        kind = re.match(r"scheme|address|host (?=\S+ is an odd)", str(explained(error)))
        return f"{kind[0].strip()} ..." if kind else str(error)


def robots(seed: int) -> Callable[[int], str]:
    """Case number -> what a robots.txt that was damaged so lets through."""

    def run(case: int) -> str:
        body = mutated(np.random.default_rng((seed, case)), list(FILES))
        rules = Rules.parse(body, "curate")
        return f"allows {sum(rules.allows(path) for path in PATHS)} of {len(PATHS)}"

    return run
