"""Egress: which addresses a download may connect to, decided after the name was looked up.

`Egress` is resolver and socket factory of one aiohttp connector: no socket is opened for an address
that was not approved before, so the address that was checked is the one that is connected, on every
redirect.
"""

from __future__ import annotations

import re
import socket
from collections import OrderedDict
from collections.abc import Sequence
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

from curate.web.deadline import Deadline
from curate.web.names import Names

MOST_APPROVED = 10_000  # addresses; a connection begins right after its address was approved
Address = IPv4Address | IPv6Address
UNICAST6 = IPv6Network("2000::/3")  # all that is allocated of IPv6's global unicast
NAT64 = IPv6Network("64:ff9b::/96")
NEVER = (  # not for the public, whatever this version of Python calls them
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata at .192
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, given up
    IPv4Network("168.63.129.16/32"),  # a cloud's host, public by number only
    IPv6Network("3fff::/20"),  # documentation
)
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


_checked = lru_cache(maxsize=4096)(check_address)  # for its tuple of entries


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
    if any(ip in network for network in NEVER):
        return False
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
    """Looks names up (names.py) and opens sockets, for approved addresses only."""

    def __init__(self, allow: Sequence[str], dns_concurrency: int) -> None:
        check_allow(allow)
        self.allow = tuple(allow)
        self.names = Names(dns_concurrency)
        # (address, port) as they are given to the socket; the longest unused one goes first
        self._approved: OrderedDict[tuple[str, int], None] = OrderedDict()

    def check_host(self, host: str, port: int) -> None:
        """Approve or refuse a host that is written as an address. Raises Refused."""
        if _is_address(host):
            self._approve(host, port, host)
        else:
            _refuse_odd_spelling(host)

    def _approve(self, host: str, port: int, address: str) -> None:
        if problem := _checked(host, port, address, self.allow):
            raise Refused(problem)
        self._approved[address, port] = None
        self._approved.move_to_end((address, port))
        if len(self._approved) > MOST_APPROVED:
            self._approved.popitem(last=False)

    async def look_up(self, host: str, deadline: Deadline) -> None:
        """Have a name's addresses at hand before its turn comes. Raises socket.gaierror."""
        if not _is_address(host):
            await self.names.find(host, deadline)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[Any]:
        """The allowed addresses of a name, as aiohttp wants them.

        Raises Refused where there is none, socket.gaierror where there is no such name.
        """
        allowed, refused = [], Refused(f"host {host[:60]} has no address")
        for found, address in await self.names.find(host.lower().rstrip(".")):
            try:
                self._approve(host, port, address)
            except Refused as error:
                refused = error
                continue
            if family in (socket.AF_UNSPEC, found):
                allowed.append(_resolved(host, port, found, address))
        if not allowed:
            raise refused
        return allowed

    def socket(self, addr_info: Any) -> socket.socket:
        """A socket for an approved address. Raises Refused for another: nothing is sent there."""
        family, kind, proto, _, (address, port, *_) = addr_info
        if (address, port) not in self._approved:
            raise Refused(f"address {address} was not checked")
        opened = socket.socket(family, kind, proto)
        opened.setblocking(False)
        return opened

    async def close(self) -> None:
        """Let go of the lookups that are under way."""
        await self.names.close()


@lru_cache(maxsize=4096)
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refuse_odd_spelling(host: str) -> None:
    try:
        socket.inet_aton(host.rstrip("."))
    except (OSError, ValueError):
        if ":" not in host:
            return
    raise Refused(f"host {host[:60]} is an odd spelling of an address")


def _resolved(host: str, port: int, family: int, address: str) -> dict[str, Any]:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    spot = {"hostname": host, "host": address, "port": port}
    return spot | {"family": family, "proto": 0, "flags": flags}
