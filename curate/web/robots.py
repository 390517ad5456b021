"""Robots: robots.txt as RFC 9309 has it: read, match, keep per origin.

Patterns come from strangers, so there is no regular expression: a pattern is cut at its `*`, and
each piece is looked for behind the one before; the leftmost place is always right, so nothing is
tried twice.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

DISALLOWED = "Use of image disallowed by robots.txt"
MAX_BYTES = 500 * 1024  # of a robots.txt that are read (2.5)
MAX_PATH = 8192  # octets of a path that are matched
TTL_S = 86_400.0  # 2.4
FAILURE_TTL_S = 60.0  # how long one that cannot be had is not asked for again
MAX_RULES = 200_000  # of all origins in memory
MAX_PATTERNS = 2000  # with `*` or `$` in one file: what a URL costs is theirs to choose below that
GOOD, UNAVAILABLE = range(200, 300), range(300, 500)  # 3xx: more redirects than are followed
BUSY = frozenset({408, 425, 429})  # of 4xx, those that say "later", not "there is none"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED = frozenset(b":/?#[]@!$&'()*+,;=")
_AS_IS = bytes(_PLAIN | _RESERVED)
_AS_IS_IN_PATH = (_PLAIN | _RESERVED) - frozenset(b"/?#")
_AS_IS_IN_QUERY = (_PLAIN | _RESERVED) - frozenset(b"#")
_ODD = re.compile(rb"%[0-9A-Fa-f]{2}|[^!-~]|[\"<>\\^`{|}]")  # escapes, and what has to be one


@dataclass(frozen=True)
class Answer:
    """What came of a robots.txt. error: why there is no body, None where there is one.

    body: the first MAX_BYTES at least. status: the last answer's, None where there was none.
    """

    status: int | None
    body: bytes
    error: str | None


Get = Callable[["URL"], Awaitable[Answer]]
Origin = tuple[str, str | None, int | None]
Rank = tuple[int, bool]  # octets of a rule; whether it allows, which wins where both are as long
NO_RULE: Rank = (-1, True)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A line of a group. Of those that match the one with the greatest `rank` decides."""

    pieces: tuple[bytes, ...]  # between the `*`
    anchored: bool  # ends in `$`
    rank: Rank

    @property
    def is_prefix(self) -> bool:
        return len(self.pieces) == 1 and not self.anchored

    def matches(self, path: bytes) -> bool:
        first, *others = self.pieces
        if not path.startswith(first):
            return False
        at = len(first)
        last = others.pop() if others and self.anchored else None
        for piece in others:
            at = path.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        if last is not None:
            return len(path) - len(last) >= at and path.endswith(last)
        return not self.anchored or at == len(path)


class Rules:
    """The rules of a robots.txt for one robot. Prefixes are looked up, patterns are tried."""

    def __init__(self, rules: list[_Rule]) -> None:
        self._prefixes: dict[bytes, Rank] = {}
        for rule in rules:
            if rule.is_prefix:
                known = self._prefixes.get(rule.pieces[0], rule.rank)
                self._prefixes[rule.pieces[0]] = max(known, rule.rank)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        patterns = [rule for rule in rules if not rule.is_prefix]
        self.patterns = sorted(patterns, key=lambda rule: rule.rank, reverse=True)

    def __len__(self) -> int:
        return len(self._prefixes) + len(self.patterns)

    @classmethod
    def parse(cls, body: bytes, robot: str) -> Rules:
        """body: of a robots.txt, whatever it is. robot: the product token, in any case."""
        return cls(_rules(body, robot.lower().encode()))

    def allows(self, path_query: str) -> bool:
        """path_query: of a URL, with its query, without its fragment."""
        path = _normal(path_query.encode(errors="replace")[:MAX_PATH] or b"/")
        prefixes = (self._prefixes.get(path[:length]) for length in self._lengths)
        best = next((rank for rank in prefixes if rank), NO_RULE)
        for rule in self.patterns:
            if rule.rank <= best:
                break
            if rule.matches(path):
                return rule.rank[1]
        return best[1]


def _rules(body: bytes, robot: bytes) -> list[_Rule]:
    """Those of all groups of `robot`, in lower case; where it has none, of `*`.

    Others are not kept: with thousands of agents in a group that would be rules times agents.
    """
    groups: dict[bytes, list[_Rule]] = {}
    agents: set[bytes] = set()  # whom the group at hand is for: ours, `*`, both or neither
    in_rules = False
    for name, value in _lines(body):
        if name == b"user-agent":
            if in_rules:
                agents, in_rules = set(), False
            if (agent := _agent(value)) in (robot, b"*"):
                agents.add(agent)
                groups.setdefault(agent, [])
        elif name in (b"allow", b"disallow"):
            in_rules = True
            rule = _rule(value, name == b"allow") if agents else None
            for agent in agents:
                groups[agent] += [rule] if rule else []
    return groups.get(robot, groups.get(b"*", []))


def _lines(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name, in lower case, and value of every line that has both a colon and a name."""
    lines = body[:MAX_BYTES].removeprefix(b"\xef\xbb\xbf").splitlines()
    if len(body) > MAX_BYTES:
        lines = lines[:-1]  # it may be cut, and half a pattern forbids more than the whole
    for line in lines:
        name, colon, value = line.partition(b"#")[0].partition(b":")
        if colon:
            yield name.strip().lower(), value.strip()


def _agent(value: bytes) -> bytes:
    """The product token: what stands before a version or a space."""
    return (value.split(b"/", 1)[0].split() or [b""])[0].lower()


def _rule(value: bytes, allow: bool) -> _Rule | None:
    """None for a pattern that matches nothing."""
    if not value.startswith((b"/", b"*")):
        return None
    anchored = value.endswith(b"$")
    pieces, in_query = [], False
    for piece in value[: len(value) - anchored].split(b"*"):
        pieces.append(_normal(piece, in_query))
        in_query = in_query or b"?" in piece
    length = sum(len(piece) + 1 for piece in pieces) - 1 + anchored
    middle = [piece for piece in pieces[1:-1] if piece]
    return _Rule((pieces[0], *middle, *pieces[1:][-1:]), anchored, (length, allow))


def _normal(octets: bytes, in_query: bool = False) -> bytes:
    """The one spelling of all that 2.2.2 calls equal.

    Escapes are undone, but for octets that no URL has unescaped and those that would change its
    parts: `/` and `?` before the query, `#` anywhere.
    """
    if not octets.translate(None, _AS_IS):
        return octets
    path, mark, query = (b"", b"", octets) if in_query else octets.partition(b"?")
    return _ODD.sub(_in_path, path) + mark + _ODD.sub(_in_query, query)


def _in_path(match: re.Match[bytes]) -> bytes:
    return _spelled(match[0], _AS_IS_IN_PATH)


def _in_query(match: re.Match[bytes]) -> bytes:
    return _spelled(match[0], _AS_IS_IN_QUERY)


def _spelled(octets: bytes, as_is: frozenset[int]) -> bytes:
    octet = int(octets[1:], 16) if len(octets) > 1 else octets[0]
    return bytes((octet,)) if octet in as_is else b"%%%02X" % octet


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an origin: its rules, or why there are none."""

    rules: Rules | None
    error: str | None
    until: float


class Robots:
    """Verdicts by the robots.txt of a URL's origin, which is fetched once and kept.

    get: fetches a robots.txt, within its limits, redirects followed. robot: the product token.
    max_hosts: origins that are kept, the last used ones. For one event loop.
    """

    def __init__(
        self,
        get: Get,
        robot: str,
        ttl_s: float = TTL_S,
        max_hosts: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._get, self._robot, self._ttl_s, self._clock = get, robot, ttl_s, clock
        self._max_hosts = max_hosts
        self._known: OrderedDict[Origin, _Known] = OrderedDict()
        self._coming: dict[Origin, asyncio.Task[_Known]] = {}
        self._rules = 0  # of all that is known

    async def verdict(self, url: URL) -> str | None:
        """None where `url` (absolute, http or https) may be fetched, else the row's error."""
        if url.raw_path == "/robots.txt":
            return None
        origin = (url.scheme, url.raw_host, url.port)
        known = self._known.get(origin)
        if known is None or self._clock() >= known.until:
            known = await self._shared(origin, url)
        else:
            self._known.move_to_end(origin)
        if known.rules is None:
            return known.error
        return None if known.rules.allows(url.raw_path_qs) else DISALLOWED

    async def close(self) -> None:
        """Cancel what is under way; those who wait for it are cancelled."""
        for task in list(self._coming.values()):
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

    async def _shared(self, origin: Origin, url: URL) -> _Known:
        """One fetch per origin; who stops waiting for it does not stop it."""
        task = self._coming.get(origin)
        if task is None:
            task = asyncio.create_task(self._fetched(origin, url), name="robots")
            self._coming[origin] = task
        return await asyncio.shield(task)

    async def _fetched(self, origin: Origin, url: URL) -> _Known:
        try:
            known = self._read(await self._get(url.origin().with_path("/robots.txt")))
        finally:
            del self._coming[origin]
        self._forget(origin)
        self._known[origin] = known
        self._rules += len(known.rules or ())
        while len(self._known) > self._max_hosts or (
            self._rules > MAX_RULES and len(self._known) > 1
        ):
            self._forget(next(iter(self._known)))
        return known

    def _forget(self, origin: Origin) -> None:
        known = self._known.pop(origin, None)
        self._rules -= len((known and known.rules) or ())

    def _read(self, answer: Answer) -> _Known:
        """2.3.1: an answer has the rules, 4xx means none; what cannot be had forbids all."""
        now = self._clock()
        status = answer.status or 0
        why = answer.error or f"HTTP Error {status}"
        if status in GOOD and answer.error is None:
            rules = Rules.parse(answer.body, self._robot)
            if len(rules.patterns) <= MAX_PATTERNS:
                return _Known(rules, None, now + self._ttl_s)
            why = f"more than {MAX_PATTERNS} patterns"
        if status in UNAVAILABLE and status not in BUSY:
            return _Known(Rules([]), None, now + self._ttl_s)
        return _Known(None, f"robots.txt cannot be had: {why}", now + FAILURE_TTL_S)
