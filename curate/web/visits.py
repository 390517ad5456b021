"""Visits: one URL -> its body or an error, through attempts and redirects.

Each hop of a redirect is treated like the first address: its scheme, host and address are checked
(egress.py), then the blocklist and its robots.txt; it waits for its host's turn and holds no other
host's while it does. What can pass is tried again after a jittered, doubling wait, or the one that
the server asked for, where that fits into what is left of the deadline; nothing is held meanwhile.
A 429 or 503 with a Retry-After holds for all URLs of its host, at all workers (pauses.py).
"""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count

from aiohttp import ClientResponse
from yarl import URL

from curate.web import robots
from curate.web.blocklist import Blocklist
from curate.web.body import read_body
from curate.web.deadline import Deadline
from curate.web.egress import Egress
from curate.web.failures import Failure, explained, http_error
from curate.web.fetch import Fetched
from curate.web.hosts import GivenUp, Lines
from curate.web.pauses import Paused
from curate.web.politeness import ROBOTS_TAG, disallows, robot_of
from curate.web.room import Room, Share
from curate.web.session import new_session
from curate.web.turns import Silent, Turns
from curate.web.urls import host_of, joined, parsed
from schemas.configs import DownloadConfig

REDIRECTS = frozenset({301, 302, 303, 307, 308})
GOOD = frozenset(range(200, 300)) - {204, 205, 206}  # these have no body, or a part of one
AHEAD = 4  # URLs per open request that may wait for their host's turn
_HOST = re.compile(r"[A-Za-z0-9_.:-]+")


@dataclass
class Visit:
    """A URL on its way. image: False for a robots.txt."""

    url: str
    target: URL | None  # None where `url` is not one
    host: str  # "" where it has none
    deadline: Deadline
    share: Share
    final_url: str
    image: bool
    attempts: int = 0
    status: int | None = None

    def fetched(self, body: bytes | None, error: str | None) -> Fetched:
        seconds = self.deadline.spent_s
        return Fetched(body, error, self.status, self.attempts, seconds, self.final_url, self.host)


class Visits:
    """All that the URLs of one worker share; made on the loop that it is used from."""

    def __init__(self, config: DownloadConfig, turns: Turns, blocklist: Blocklist) -> None:
        self.config, self.turns, self.blocklist = config, turns, blocklist
        self.egress = Egress(config.allow_hosts, config.dns_concurrency)
        self.session = new_session(config, self.egress)
        self.room = Room(config.buffer_bytes)
        self.open = asyncio.Semaphore(config.concurrency)
        self.lines = Lines(config.per_host, AHEAD * config.concurrency)
        self.given_up = GivenUp(config.give_up_host_after)
        self.robot = robot_of(config)
        self.robots = robots.Robots(self._robots_txt, self.robot) if config.robots_txt else None
        self.directives = {d.strip().lower() for d in config.disallowed_header_directives}

    def new(self, url: str, *, image: bool = True) -> Visit:
        target, host = None, ""
        with suppress(Failure):  # _follow says it
            target = parsed(url)
            host = host_of(target)
        deadline = Deadline(self.config.deadline_s)
        return Visit(url, target, host, deadline, Share(self.room), url, image)

    async def fetch(self, visit: Visit) -> Fetched:
        """Try until there is a body, an error that stays, or no time. `visit.share` has the body's
        bytes until they are given back.
        """
        failure = Failure("")
        for attempt in count(1):
            found = await self._attempt(visit)
            if isinstance(found, bytes):
                return visit.fetched(found, None)
            visit.share.give_back()
            visit.attempts += found.asked
            if found.asked or attempt == 1:  # else the host was given up or paused meanwhile
                failure = found
            wait_s = self._wait_s(found, attempt, visit.deadline.left_s)
            if wait_s is None:
                break
            visit.deadline.spend(wait_s)
            await asyncio.sleep(wait_s)
        return visit.fetched(None, str(failure))

    def _wait_s(self, failure: Failure, attempt: int, left_s: float) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        if not failure.again or attempt > self.config.retries:
            return None
        backoff_s = self.config.retry_wait_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        wait_s = max(failure.wait_s, backoff_s)
        return wait_s if wait_s < left_s else None

    async def _attempt(self, visit: Visit) -> bytes | Failure:
        visit.status, visit.final_url = None, visit.url
        try:
            body = await self._follow(visit)
        except Silent:
            raise  # without the dispatcher there is nothing to go on with
        except Exception as error:  # whatever a stranger's URL or answer brings about ends it alone
            return explained(error)
        visit.attempts += 1
        return body

    async def _follow(self, visit: Visit) -> bytes:
        target = visit.target or parsed(visit.url)
        for _ in range(self.config.max_redirects + 1):
            found = await self._patient_hop(target, visit)
            if isinstance(found, bytes):
                return found
            target = joined(target, found)
            visit.final_url = str(target)
        raise Failure("too many redirects")

    async def _patient_hop(self, target: URL, visit: Visit) -> bytes | str:
        """A hop, once its host may be asked; holds nothing until then."""
        while True:
            try:
                return await self._hop(target, visit)
            except Paused as error:
                wait_s, said = error.seconds, str(error)
            if wait_s >= visit.deadline.left_s:
                raise Failure(said, asked=visit.final_url != visit.url)
            visit.deadline.spend(wait_s)
            await asyncio.sleep(wait_s)

    async def _hop(self, target: URL, visit: Visit) -> bytes | str:
        """A body, or where it is said to be."""
        visit.status = None  # of this hop: one that led here says nothing about what is here
        self._check(target, visit)
        host, place = host_of(target), f"{host_of(target)}:{target.port}"
        async with self.lines.of(host) if visit.image else nullcontext():
            self._not_given_up(place, visit)
            try:
                self.turns.pauses.check(host)
                await self.egress.look_up(host, visit.deadline)
                if visit.image and self.robots and (why := await self.robots.verdict(target)):
                    raise Failure(why)
                async with self.turns.of(host), self.open:
                    self.turns.pauses.check(host)
                    self._not_given_up(place, visit, asking=True)
                    async with visit.deadline:
                        found = await self._asked(target, visit)
            except (Silent, Paused):
                raise
            except Exception as error:  # see _attempt
                failure = explained(error)
                if failure.pause:
                    self.turns.pause(host, failure.wait_s, str(failure))
                if failure.gone:
                    self.given_up.failed(place, str(failure))
                elif visit.status is not None:
                    self.given_up.answered(place)
                raise failure from error
            self.given_up.answered(place)
            return found

    def _not_given_up(self, place: str, visit: Visit, *, asking: bool = False) -> None:
        if error := self.given_up.error(place, asking=asking):
            raise Failure(error, asked=visit.final_url != visit.url)

    def _check(self, target: URL, visit: Visit) -> None:
        if not target.scheme:
            raise Failure("no scheme")
        if target.scheme not in ("http", "https"):
            raise Failure(f"scheme {target.scheme[:20]} is not allowed")
        if not host_of(target) or target.port is None:
            raise Failure("no host")
        written = target.raw_host or ""
        if not _HOST.fullmatch(written):
            raise Failure("not a URL")
        self.egress.check_host(written, target.port)
        if error := self.blocklist.host(host_of(target)) or self.blocklist.url(visit.final_url):
            raise Failure(error)

    async def _asked(self, target: URL, visit: Visit) -> bytes | str:
        try:
            return await self._ask(target, visit)
        except (RuntimeError, AssertionError, LookupError) as error:  # aiohttp's own consistency
            raise Failure(f"client failed: {type(error).__name__}", again=True) from error

    async def _ask(self, target: URL, visit: Visit) -> bytes | str:
        async with self.session.get(target, allow_redirects=False) as reply:
            visit.status = reply.status
            if reply.status in REDIRECTS and "Location" in reply.headers:
                return reply.headers["Location"]
            if reply.status not in GOOD:
                raise http_error(reply)
            return await self._body(reply, visit)

    async def _body(self, reply: ClientResponse, visit: Visit) -> bytes:
        if not visit.image:
            return await read_body(reply, robots.MAX_BYTES, visit.share, visit.deadline, cut=True)
        if disallows(reply.headers.getall("X-Robots-Tag", []), self.robot, self.directives):
            raise Failure(ROBOTS_TAG)
        return await read_body(reply, self.config.max_bytes, visit.share, visit.deadline)

    async def _robots_txt(self, url: URL) -> robots.Answer:
        """With attempts and redirects like an image, but in no line: who waits for it is in one."""
        visit = self.new(str(url), image=False)
        try:
            got = await self.fetch(visit)
        finally:
            visit.share.give_back()
        return robots.Answer(got.status, got.body or b"", got.error)

    async def close(self) -> None:
        if self.robots:
            await self.robots.close()
        await self.turns.close()
        await self.session.close()
        await self.egress.close()
