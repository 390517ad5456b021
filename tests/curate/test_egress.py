"""The guard that decides where a connection may go, below the socket."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.egress import Egress, Refused, check_address, check_allow

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1",
    "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
    "2002:7f00:1::", "2002:a00:1::1", "2001::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
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


def test_no_socket_is_made_for_an_address_that_was_not_checked():
    """The last gate: the socket factory knows only approved addresses, whoever asks."""
    egress = Egress(("127.0.0.1:80",), 1)
    egress.check_host("127.0.0.1", 80)
    egress.socket((2, 1, 6, "", ("127.0.0.1", 80))).close()
    for sockaddr in [("127.0.0.1", 81), ("127.0.0.2", 80), ("8.8.8.8", 80), ("localhost", 80)]:
        with pytest.raises(Refused, match="was not checked"):
            egress.socket((2, 1, 6, "", sockaddr))
