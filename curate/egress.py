"""Egress: which addresses a download may connect to, decided after the name was looked up.

`Egress` is resolver and socket factory of one aiohttp connector: no socket is opened for an address
that was not approved before, so the address that was checked is the one that is connected, on every
redirect.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

Address = IPv4Address | IPv6Address
UNICAST6 = IPv6Network("2000::/3")  # all that is allocated of IPv6's global unicast
NAT64 = IPv6Network("64:ff9b::/96")
_ENTRY = re.compile(
    r"\[(?P<v6>[^]]+)\](?::(?P<port6>\d+))?|(?P<host>[^:]+)(?::(?P<port>\d+))?|(?P<bare6>.+)"
)


class Refused(OSError):  # noqa: N818 - not a fault: a decision
    """An address, or a way of writing one, that this download may not connect to."""


def check_address(host: str, port: int, address: str, allow: Sequence[str] = ()) -> str | None:
    """None where `address` may be connected to for a URL's `host` and `port`, else the reason.

    Public unicast addresses may. Others when an entry of `allow` names the host, the address or a
    network of it ("intranet.example", "127.0.0.1", "10.0.0.0/8", "fd00::/8"), for one port only
    where it has one ("127.0.0.1:8000", "[::1]:8000").
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return f"address {address[:60]} is not written as an IP address"
    plain = _unmapped(ip)
    if _is_public(plain) or any(_allows(entry, host, port, plain) for entry in allow):
        return None
    return f"address {address} is not public"


def check_allow(entries: Sequence[str]) -> None:
    """Raises ValueError for an entry of `allow_hosts` that can never match."""
    for entry in entries:
        name, _, network = _parsed(entry)
        if network is None and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(
                f"allow_hosts has {entry!r}: write a host, host:port, IP, IP:port, [IPv6]:port "
                "or network"
            )


def _unmapped(ip: Address) -> Address:
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip


def _is_public(ip: Address) -> bool:
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    if ip in NAT64:
        return _is_public(IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip.sixtofour is not None and not _is_public(ip.sixtofour):
        return False
    return ip in UNICAST6 and ip.is_global and ip.teredo is None


@lru_cache(maxsize=256)
def _parsed(entry: str) -> tuple[str, int | None, IPv4Network | IPv6Network | None]:
    match = _ENTRY.fullmatch(entry)
    found = match.groupdict() if match else {}
    name = found.get("v6") or found.get("host") or found.get("bare6") or ""
    port = found.get("port6") or found.get("port")
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        network = None
    return name.lower().rstrip("."), int(port) if port else None, network


def _allows(entry: str, host: str, port: int, ip: Address) -> bool:
    name, allowed_port, network = _parsed(entry)
    if allowed_port is not None and allowed_port != port:
        return False
    return ip in network if network is not None else name == host.lower().rstrip(".")


class Egress:
    """Looks names up, `dns_concurrency` at once, and opens sockets, for approved addresses only."""

    def __init__(self, allow: Sequence[str], dns_concurrency: int) -> None:
        check_allow(allow)
        self.allow = tuple(allow)
        self._threads = ThreadPoolExecutor(dns_concurrency, thread_name_prefix="dns")
        self._approved: set[tuple[Address, int]] = set()
        self._unknown: dict[
            str, socket.gaierror
        ] = {}  # names that do not exist: not asked for again

    def check_host(self, host: str, port: int) -> None:
        """Approve or refuse a host that is written as an address. Raises Refused."""
        try:
            ip_address(host)
        except ValueError:
            self._refuse_odd_spelling(host)
            return
        self._approve(host, port, host)

    def _refuse_odd_spelling(self, host: str) -> None:
        try:
            socket.inet_aton(host)
        except (OSError, ValueError):
            if ":" not in host:
                return
        raise Refused(f"host {host[:60]} is an odd spelling of an address")

    def _approve(self, host: str, port: int, address: str) -> None:
        if problem := check_address(host, port, address, self.allow):
            raise Refused(problem)
        self._approved.add((ip_address(address), port))

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[Any]:
        """The allowed addresses of a name, as aiohttp wants them.

        Raises Refused where there is none, socket.gaierror where there is no such name.
        """
        if host in self._unknown:
            raise socket.gaierror(*self._unknown[host].args)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            if error.errno != socket.EAI_AGAIN:
                self._unknown[host] = error
            raise
        return self._allowed(host, port, found)

    def _allowed(self, host: str, port: int, found: Sequence[Any]) -> list[Any]:
        allowed, refused = [], Refused(f"host {host[:60]} has no address")
        for family, _, proto, _, sockaddr in found:
            try:
                self._approve(host, port, sockaddr[0])
            except Refused as error:
                refused = error
                continue
            allowed.append(
                {
                    "hostname": host,
                    "host": sockaddr[0],
                    "port": port,
                    "family": family,
                    "proto": proto,
                    "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                }
            )
        if not allowed:
            raise refused
        return allowed

    def socket(self, addr_info: Any) -> socket.socket:
        """A socket for an approved address. Raises Refused for another: nothing is sent there."""
        family, kind, proto, _, (address, port, *_) = addr_info
        try:
            known = (ip_address(address), port) in self._approved
        except ValueError:
            known = False
        if not known:
            raise Refused(f"address {address} was not checked")
        opened = socket.socket(family, kind, proto)
        opened.setblocking(False)
        return opened

    async def close(self) -> None:
        """Let go of the lookups that are under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
