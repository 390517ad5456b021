"""What is never to be taken in: spellings of URLs, hosts and subdomains, hashes, bad lines."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import time

import numpy as np
import pytest

from curate.web.blocklist import Blocklist, normal_url

URL = "URL is on the blocklist"


def listed(tmp_path, text: str | bytes, name: str = "block.txt") -> Blocklist:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return Blocklist([str(file)])


def test_nothing_is_blocked_without_files():
    """An empty list knows nothing."""
    empty = Blocklist(())
    assert empty.url("http://a/") is None
    assert empty.host("a") is None
    assert empty.image("0" * 64, 0) is None


@pytest.mark.parametrize(
    "spelling",
    [
        "https://example.org/a%20b/%C3%BC.jpg?x=1",
        "HTTPS://Example.ORG:443/a%20b/%c3%bc.jpg?x=1#there",
        "https://user:word@example.org/a b/ü.jpg?x=1",
        "https://example.org./a%20b/%C3%BC.jpg?%78=1",
    ],
)
def test_a_url_is_known_in_every_spelling(tmp_path, spelling):
    """Case of scheme and host, default port, user, fragment and escapes make no difference."""
    blocklist = listed(tmp_path, "url https://example.org/a%20b/%C3%BC.jpg?x=1\n")
    assert blocklist.url(spelling) == URL
    assert listed(tmp_path, f"url {spelling}\n").url("https://example.org/a b/ü.jpg?x=1") == URL


@pytest.mark.parametrize(
    "spelling", ["/a/./b", "/x/../a/b", "/%2e/a/b", "/x/%2E./a/b", "/../a/b", "/a/b/c/d/../../../b"]
)
def test_dot_segments_make_no_other_url(tmp_path, spelling):
    """Neither in the list nor in what is asked, written out or escaped."""
    spelling = f"https://example.org{spelling}"
    assert listed(tmp_path, "url https://example.org/a/b").url(spelling) == URL
    assert listed(tmp_path, f"url {spelling}").url("https://example.org/a/b") == URL


@pytest.mark.parametrize(
    "other",
    [
        "http://example.org/a?x=1",
        "https://example.org:8443/a?x=1",
        "https://example.org/A?x=1",
        "https://example.org/a?x=1&y",
        "https://www.example.org/a?x=1",
        "https://example.org/a%3Fx=1",
        "not a url at all",
        "http://[bad/",
        "",
        "\ud800",
    ],
)
def test_another_url_is_not(tmp_path, other):
    """Scheme, port, path, query and host are told apart; what is no URL is not listed."""
    assert listed(tmp_path, "url https://example.org/a?x=1").url(other) is None


def test_urls_that_need_no_change_are_left_alone():
    """The quick way and the long way agree."""
    for url in ("http://a.example.org/x/Y-1_2.jpg?q=1", "https://example.org/", "http://a/;,@!$&"):
        assert normal_url(url) == url
    assert normal_url("http://example.org") == "http://example.org/"
    assert normal_url("http://example.org?q") == "http://example.org/?q"
    assert normal_url("HTTP://example.org:80/%7ea") == "http://example.org/~a"
    assert normal_url("http://[2001:DB8::1]:80/a") == "http://[2001:db8::1]/a"
    assert normal_url("http://bücher.example/") == "http://xn--bcher-kva.example/"


@pytest.mark.parametrize(
    ("entry", "host", "named"),
    [
        ("example.org", "example.org", "example.org"),
        ("example.org", "img.cdn.Example.ORG.", "example.org"),
        ("Example.org.", "a.example.org", "example.org"),
        ("bücher.example", "www.xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "BÜCHER.example", "xn--bcher-kva.example"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]", "2001:DB8::1", "2001:db8::1"),
    ],
)
def test_a_host_is_blocked_with_its_subdomains(tmp_path, entry, host, named):
    """In either way of writing; the message names the entry that did it."""
    assert listed(tmp_path, f"host {entry}").host(host) == f"host {named} is on the blocklist"


@pytest.mark.parametrize("host", ["notexample.org", "org", "example.org.evil.net", "1.192.0.2.7"])
def test_other_hosts_are_not(tmp_path, host):
    """A name that only ends like the entry is another host; addresses have no subdomains."""
    assert listed(tmp_path, "host example.org\nhost 0.2.7.8").host(host) is None
    assert listed(tmp_path, "host 0.2.7").host("192.0.2.7") is None


def test_images_are_known_by_their_bytes_or_their_looks(tmp_path):
    """sha256 in any case, pHashes within the radius of their entry, 0 where it has none."""
    sha = hashlib.sha256(b"picture").hexdigest()
    blocklist = listed(
        tmp_path, f"sha256 {sha.upper()}\nphash 00000000000000ff 3\nphash ff00000000000000\n"
    )
    assert blocklist.image(sha, None) == "image is on the blocklist (sha256)"
    assert blocklist.image(None, 0xFF ^ 0b111) == "image is on the blocklist (pHash)"
    assert blocklist.image(None, 0xFF ^ 0b1111) is None
    assert blocklist.image(None, 0xFF << 56) == "image is on the blocklist (pHash)"
    assert blocklist.image(None, 0xFF << 56 ^ 1) is None
    assert blocklist.image(hashlib.sha256(b"other").hexdigest(), None) is None
    assert blocklist.image(None, None) is None


def test_hashes_that_begin_alike_are_told_apart(tmp_path):
    """128 bits count, not the 64 that are sorted."""
    entries = [f"{'ab' * 8}{i:016x}{'cd' * 16}" for i in (1, 2, 4)]
    blocklist = listed(tmp_path, "".join(f"sha256 {entry}\n" for entry in entries))
    assert all(blocklist.image(entry, None) for entry in entries)
    assert blocklist.image(f"{'ab' * 8}{3:016x}{'cd' * 16}", None) is None


def test_many_hashes_agree_with_counting_bits_one_by_one(tmp_path):
    """The nearest of 40 000 hashes decides, wherever it stands."""
    draw = np.random.default_rng(3)
    hashes = [int(h) for h in draw.integers(0, 2**64, 40_000, dtype=np.uint64)]
    blocklist = listed(tmp_path, "".join(f"phash {h:016x} 14\n" for h in hashes))
    seen = set()
    for _ in range(40):
        query = int(draw.integers(0, 2**64, dtype=np.uint64))
        near = any((h ^ query).bit_count() <= 14 for h in hashes)
        assert (blocklist.image(None, query) is not None) is near
        seen.add(near)
    assert seen == {True, False}


def test_comments_blank_lines_and_several_files(tmp_path):
    """`#` begins a comment at the beginning of a line or behind a space; files may be gzipped."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt.gz"
    text = (
        "\ufeff# takedowns\r\n\r\n  url http://a/x#part   # asked for by mail\r\nHOST a.example\r\n"
    )
    first.write_bytes(text.encode())
    second.write_bytes(gzip.compress(b"url\thttp://b/y"))
    blocklist = Blocklist([str(first), f"file://{second}"])
    assert blocklist.url("http://a/x") == blocklist.url("http://b/y") == URL
    assert blocklist.host("a.example")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("http://example.org/x", "'http://example.org/x' is no kind of entry"),
        ("url example.org/x", "'example.org/x' is no url"),
        ("url ftp://example.org/x", "'ftp://example.org/x' is no url"),
        ("url http:///x", "'http:///x' is no url"),
        ("url http://[bad/x", "'http://[bad/x' is no url"),
        ("url", "'' is no url"),
        ("host http://example.org", "'http://example.org' is no host"),
        ("host a b", "'a b' is no host"),
        ("host .", "'.' is no host"),
        ("sha256 12ab", "'12ab' is no sha256"),
        ("sha256 " + "g" * 64, "is no sha256"),
        ("phash 12ab", "'12ab' is no phash"),
        ("phash 00000000000000ff 33", "'00000000000000ff 33' is no phash"),
        ("phash 00000000000000ff -1", "is no phash"),
        ("url http://a/" + "x" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_a_bad_line_is_told_with_its_place(tmp_path, line, problem):
    """File, line, what was seen and what would be valid."""
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        listed(tmp_path, f"# one\nhost a\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'block.txt'}, line 3: ")
    assert "valid are: url https://..., host example.org, sha256 and 64 hex" in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    """With the name that the recipe gave it."""
    with pytest.raises(ValueError, match=r"blocklist has .*gone\.txt': there is no such file"):
        Blocklist([str(tmp_path / "gone.txt")])


def test_a_hundred_thousand_entries_are_looked_up_at_once(tmp_path):
    """Each lookup takes microseconds, a pHash less than a millisecond."""
    draw = np.random.default_rng(5)
    lines = [f"url https://example.org/{i}.jpg" for i in range(100_000)]
    lines += [f"phash {h:016x} 6" for h in draw.integers(0, 2**64, 100_000, dtype=np.uint64)]
    blocklist = listed(tmp_path, "\n".join(lines))
    began = time.perf_counter()
    found = [blocklist.url(f"https://example.org/{i}.jpg") for i in range(0, 200_000, 1000)]
    urls_s = (time.perf_counter() - began) / len(found)
    assert found == [URL] * 100 + [None] * 100
    began = time.perf_counter()
    for _ in range(100):
        blocklist.image(None, int.from_bytes(os.urandom(8)))
    phash_s = (time.perf_counter() - began) / 100
    assert urls_s < 0.001  # alone 5 us
    assert phash_s < 0.01  # alone 0.1 ms
