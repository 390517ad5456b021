"""A fetcher for tests: quick to lose patience, allowed to reach one server on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from curate.web.blocklist import Blocklist
from curate.web.dispatch import Dispatcher
from curate.web.fetch import Fetched, Fetcher
from curate.web.turns import Ask, Turns
from schemas.configs import DownloadConfig
from tests.fault_server import FaultServer

QUICK: dict[str, Any] = {
    "timeout_s": 1.5,
    "deadline_s": 1.5,
    "retries": 1,
    "retry_wait_s": 0.01,
    "give_up_host_after": 0,
}


def config(web: FaultServer, **knobs: Any) -> DownloadConfig:
    return DownloadConfig(**(QUICK | {"allow_hosts": (web.address,)} | knobs))


def asking(
    dispatcher: Dispatcher, failures: int = 0, calls: list[tuple[Any, ...]] | None = None
) -> Ask:
    """The way to a dispatcher in this process: it fails that often, then it works.

    calls: gets what is said to it.
    """
    left = iter(range(failures))

    async def ask(*exchange: Any) -> Any:
        if next(left, None) is not None:
            raise ConnectionError("gone")
        if calls is not None:
            calls.append(exchange)
        return dispatcher.exchange(*exchange)

    return ask


@contextmanager
def fetcher(knobs: DownloadConfig) -> Iterator[Fetcher]:
    """With turns from a dispatcher of its own."""
    ask = asking(Dispatcher(knobs.per_host, knobs.per_host_rate))
    way = Fetcher(knobs, Turns(ask, "worker"), Blocklist(knobs.blocklist))
    try:
        yield way
    finally:
        way.close()


def fetch(urls: Sequence[str], way: DownloadConfig | Fetcher) -> list[Fetched]:
    """What became of each URL, each told once, none stalled."""
    if isinstance(way, DownloadConfig):
        with fetcher(way) as made:
            return fetch(urls, made)
    results: dict[int, Fetched] = {}

    async def keep(index: int, fetched: Fetched) -> None:
        assert index not in results
        results[index] = fetched

    assert way.fetch_all(urls, keep) == []
    return [results[i] for i in range(len(urls))]
