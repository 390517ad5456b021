"""The guard that decides where a connection may go, below the socket."""

from __future__ import annotations

import errno
import ipaddress
import socket
from asyncio.selector_events import BaseSelectorEventLoop

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.web.egress import MOST_APPROVED, Egress, Refused, check_address, check_allow
from curate.web.names import Names
from schemas.configs import DownloadConfig
from tests.fetching import fetch, fetcher

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1",
    "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a00:1::1", "2001::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
    "192.0.0.192", "192.0.0.9", "192.88.99.1", "168.63.129.16", "3fff::1",
    "::ffff:192.0.0.192", "64:ff9b::192.0.0.192", "2002:c000:c0::1",
    "::ffff:168.63.129.16", "64:ff9b::168.63.129.16", "2002:a83f:8110::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "168.63.129.17", "192.0.1.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address):
    """Private, loopback, link-local, multicast, reserved and embedded ones are not public."""
    assert check_address("example.org", 80, address) == f"address {address} is not public"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    """Global unicast addresses need no permission."""
    assert check_address("example.org", 443, address) is None


@pytest.mark.parametrize(
    "address", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3"]
)
def test_what_is_no_canonical_address_is_refused(address):
    """The guard takes addresses only as the socket does."""
    assert check_address("h", 80, address) == f"address {address} is not written as an IP address"


@pytest.mark.parametrize(
    ("allow", "host", "port", "address", "passes"),
    [
        ("127.0.0.1", "h", 80, "127.0.0.1", True),
        ("127.0.0.1", "h", 80, "127.0.0.2", False),
        ("127.0.0.1:8000", "h", 8000, "127.0.0.1", True),
        ("127.0.0.1:8000", "h", 8001, "127.0.0.1", False),
        ("127.0.0.1:8000", "h", 8000, "::ffff:127.0.0.1", True),
        ("10.0.0.0/8", "h", 80, "10.9.8.7", True),
        ("10.0.0.0/8", "h", 80, "11.0.0.1", True),  # public anyway
        ("10.0.0.0/8", "h", 80, "192.168.0.1", False),
        ("10.0.0.0/8:80", "h", 80, "10.0.0.1", True),
        ("10.0.0.0/8:80", "h", 81, "10.0.0.1", False),
        ("fd00::/8", "h", 80, "fd12::1", True),
        ("::1", "h", 80, "::1", True),
        ("[::1]:8000", "h", 8000, "::1", True),
        ("[::1]:8000", "h", 80, "::1", False),
        ("Intranet.Example", "intranet.example.", 80, "10.0.0.1", True),
        ("intranet.example:80", "intranet.example", 443, "10.0.0.1", False),
        ("intranet.example", "evil.intranet.example", 80, "10.0.0.1", False),
        ("intranet.example", "intranet.example.evil.org", 80, "10.0.0.1", False),
    ],
)
def test_allowed_hosts_widen_the_guard_exactly_as_far_as_they_say(
    allow, host, port, address, passes
):
    """An entry names a host, an address or a network, perhaps a port; nothing near it passes."""
    assert (check_address(host, port, address, [allow]) is None) == passes


@given(st.ip_addresses())
def test_whatever_passes_is_global_unicast(address):
    """No address that Python knows as private, local, multicast or reserved passes."""
    nat64 = ipaddress.ip_network("64:ff9b::/96")
    if check_address("h", 80, str(address)) is None and address not in nat64:
        plain = getattr(address, "ipv4_mapped", None) or address
        assert plain.is_global
        local = plain.is_loopback or plain.is_link_local
        assert not any((local, plain.is_multicast, plain.is_reserved))


@pytest.mark.parametrize("entry", ["http://a", "", "*.example", "10.0.0.0/99", "a:b:c d"])
def test_an_entry_that_can_never_match_is_an_error(entry):
    """A mistyped permission is refused with what can be written."""
    with pytest.raises(ValueError, match="allow_hosts has"):
        check_allow([entry])


def approved(*hosts: tuple[str, int], allow: tuple[str, ...] = ()) -> Egress:
    egress = Egress(allow, 1)
    for host, port in hosts:
        egress.check_host(host, port)
    return egress


def test_no_socket_is_made_for_an_address_that_was_not_checked():
    """The last gate: the socket factory knows only approved addresses, whoever asks."""
    egress = approved(("127.0.0.1", 80), allow=("127.0.0.1:80",))
    egress.socket((2, 1, 6, "", ("127.0.0.1", 80))).close()
    for sockaddr in [("127.0.0.1", 81), ("127.0.0.2", 80), ("8.8.8.8", 80), ("localhost", 80)]:
        with pytest.raises(Refused, match="was not checked"):
            egress.socket((2, 1, 6, "", sockaddr))


def test_approvals_are_bounded():
    """Of a million addresses only the last ones are remembered; those are still let through."""
    egress = approved(*((f"8.8.{n // 250}.{n % 250}", 80) for n in range(MOST_APPROVED + 5)))
    assert len(egress._approved) == MOST_APPROVED
    egress.socket((2, 1, 6, "", ("8.8.40.4", 80))).close()


class Recorder:
    """In place of the resolver and of `connect`, below all that is tested: no packet can leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.connects: list[tuple[str, int]] = []
        monkeypatch.setattr(Names, "_asked", self.asked)
        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", self.connect)

    async def asked(self, _: str) -> list[tuple[int, str]]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in found]

    async def connect(self, _: object, address: tuple[str, int]) -> None:
        self.connects.append((address[0], address[1]))
        raise ConnectionRefusedError(errno.ECONNREFUSED, "recorded")


INSIDE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.169.254", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "fe80::1", "ff02::1", "2002:7f00:1::",
]  # fmt: skip
SPELLINGS = [
    "http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/",
    "http://017700000001/", "http://0x7f.1/", "http://127.1/", "http://127.0.0.1./",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::127.0.0.1]/", "http://169.254.169.254/",
    "http://2852039166/", "http://0xa9fea9fe/", "http://[fd00:ec2::254]/", "http://224.0.0.1/",
    "http://[ff02::1]/", "http://[fe80::1]/", "http://①②⑦.0.0.1/", "http://127。0。0。1/",
    "http://0/", "http://0.0.0.0/", "http://[::]/", "http://[::127.0.0.1]/",
]  # fmt: skip
OUT = DownloadConfig(retries=0, robots_txt=False, give_up_host_after=0)


@pytest.mark.parametrize("url", SPELLINGS)
def test_no_spelling_of_an_inner_address_is_connected(monkeypatch, url):
    """Decimal, octal, hexadecimal, mapped, translated, wide and dotted forms are all refused, and
    nothing reaches `connect`, even where a resolver would read them as addresses.
    """
    recorder = Recorder(monkeypatch, ["127.0.0.1"])
    (got,) = fetch([url], OUT)
    assert got.body is None
    assert recorder.connects == []
    assert "not public" in (got.error or "") or "odd spelling" in (got.error or "")


@pytest.mark.parametrize("inside", INSIDE)
def test_a_name_that_leads_inside_is_not_connected(monkeypatch, inside):
    """The resolved address is what is checked, whatever the name."""
    recorder = Recorder(monkeypatch, [inside])
    (got,) = fetch(["http://example.org/a.jpg"], OUT)
    assert got.error == f"address {inside} is not public"
    assert recorder.connects == []


@pytest.mark.parametrize("inside", INSIDE)
def test_a_name_that_turns_inside_later_is_not_connected(monkeypatch, inside):
    """Rebinding: the name is public at first, and private when it is looked up again."""
    monkeypatch.setattr("curate.web.names.TTL_S", -1)  # each lookup asks again
    recorder = Recorder(monkeypatch, ["93.184.216.34"], ["93.184.216.34"], [inside])
    with fetcher(OUT) as way:
        first, second = (fetch(["http://example.org/a.jpg"], way)[0] for _ in range(2))
    assert first.error == "connection refused"  # by the recorder
    assert second.error == f"address {inside} is not public"
    assert recorder.connects == [("93.184.216.34", 80)]


def test_of_a_name_with_both_only_the_public_addresses_are_connected(monkeypatch):
    """A private address beside a public one is left out."""
    recorder = Recorder(monkeypatch, ["10.0.0.1", "93.184.216.34", "::1"])
    fetch(["http://example.org/a.jpg"], OUT)
    assert recorder.connects == [("93.184.216.34", 80)]


def test_even_a_broken_guard_opens_no_socket(monkeypatch):
    """Where the resolver's check lets an address through, the socket's gate does not."""
    recorder = Recorder(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(Egress, "_approve", lambda *_: None)
    (got,) = fetch(["http://example.org/a.jpg"], OUT)
    assert got.error == "address 127.0.0.1 was not checked"
    assert recorder.connects == []
