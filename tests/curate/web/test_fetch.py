"""Fetching from a server with every fault."""

from __future__ import annotations

import time

import pytest

from curate.web.politeness import ROBOTS_TAG
from schemas.configs import DownloadConfig
from tests.fault_server import fault_server, forbidden, self_signed
from tests.faults import HTML, SVG, picture, png_bomb
from tests.fetching import config, fetch


@pytest.fixture(scope="module")
def web():
    with fault_server() as server:
        yield server


def test_a_body_comes_with_its_status_attempts_host_and_address(web):
    """A good URL gives its bytes, the status, one attempt and where they came from."""
    url = web.image("/good.jpg", seed=1)
    (got,) = fetch([url], config(web))
    assert got.body == web.files["/good.jpg"][1]
    assert (got.error, got.status, got.attempts, got.final_url) == (None, 200, 1, url)
    assert got.host == "127.0.0.1"
    assert 0 < got.seconds < 2


def test_two_urls_with_one_basename_give_their_own_bytes(web):
    """Bodies belong to URLs, not to file names."""
    urls = [web.image("/a/photo.jpg", seed=1), web.image("/b/photo.jpg", seed=2)]
    first, second = fetch(urls, config(web))
    assert first.body == web.files["/a/photo.jpg"][1]
    assert second.body == web.files["/b/photo.jpg"][1]
    assert first.body != second.body


FAULTY = [
    ("/status/404", "HTTP Error 404: Not Found", 1),
    ("/status/410", "HTTP Error 410: Gone", 1),
    ("/status/403", "HTTP Error 403: Forbidden", 1),
    ("/status/408", "HTTP Error 408: Request Timeout", 2),
    ("/status/425", "HTTP Error 425: Too Early", 2),
    ("/status/503", "HTTP Error 503: Service Unavailable", 2),
    ("/status/204", "HTTP Error 204: No Content", 1),
    ("/status/206", "HTTP Error 206: Partial Content", 1),
    ("/status/304", "HTTP Error 304: Not Modified", 1),
    ("/status/101", "HTTP Error 101: Switching Protocols", 1),
    ("/status/302", "HTTP Error 302: Found", 1),
    ("/says_huge", "body larger than 1000000 bytes", 1),
    ("/endless", "body larger than 1000000 bytes", 1),
    ("/bomb", "body larger than 1000000 bytes", 1),
    ("/false_gzip", "body is not in its declared encoding", 1),
    ("/encoded?as=deflate", "body is not in its declared encoding", 1),
    ("/encoded?in=empty_members", "body is not in its declared encoding", 1),
    ("/encoded?in=gzip&cut=1", "body shorter than declared", 2),
    ("/encoded?as=br", "content encoding br is not supported", 1),
    ("/encoded?as=zstd", "content encoding zstd is not supported", 1),
    ("/encoded?as=gzip,gzip", "content encoding gzip, gzip is not supported", 1),
    ("/cut", "body shorter than declared", 2),
    ("/cut_chunks", "body shorter than declared", 2),
    ("/broken_chunks", "malformed answer", 1),
    ("/loop", "too many redirects", 1),
    ("/reset", "connection reset", 2),
    ("/hang_up", "connection reset", 2),
    ("/long_header", "headers larger than 65536 bytes", 1),
    ("/many_headers", "headers larger than 65536 bytes", 1),
    ("/endless_header", "headers larger than 65536 bytes", 1),
    ("/endless_status", "headers larger than 65536 bytes", 1),
    ("/endless_hints", "headers larger than 65536 bytes", 1),
    ("/endless_trailers", "headers larger than 65536 bytes", 1),
    ("/endless_extension", "headers larger than 65536 bytes", 1),
    ("/garbage", "malformed answer", 1),
    ("/redirect?to=file:///etc/passwd", "scheme file is not allowed", 1),
    ("/redirect?to=http://169.254.169.254/latest", "address 169.254.169.254 is not public", 1),
    ("/redirect?to=http://[fd00:ec2::254]/latest", "address fd00:ec2::254 is not public", 1),
    ("/redirect?to=http://0x7f.1/", "host 0x7f.1 is an odd spelling of an address", 1),
    ("/redirect?to=http://[::1", "not a URL", 1),
    ("/redirect?to=http://[]@", "not a URL", 1),
    ("/robots?tag=noai", ROBOTS_TAG, 1),
    ("/later?s=3600", "HTTP Error 429: Too Many Requests", 1),
    ("/silent", "timed out", 1),
    ("/drip", "timed out", 1),
    ("/drip?every=1", "timed out", 1),
]


@pytest.mark.parametrize(("path", "error", "attempts"), FAULTY)
def test_every_fault_is_a_short_error_and_some_are_tried_again(web, path, error, attempts):
    """A fault gives its own text; broken connections, 408, 425 and 5xx get a second attempt."""
    (got,) = fetch([web.url(path)], config(web, max_bytes=1_000_000))
    assert (got.body, got.error, got.attempts) == (None, error, attempts)


def test_all_faults_at_once_do_not_stop_each_other(web):
    """A list of nothing but faults, with good URLs between them, ends within one deadline."""
    faulty = [fault for fault in FAULTY if not fault[0].startswith("/later")]  # it pauses the host
    good = [web.image(f"/among/{i}.jpg", seed=i) for i in range(len(faulty))]
    urls = [u for (path, *_), ok in zip(faulty, good, strict=True) for u in (web.url(path), ok)]
    began = time.monotonic()
    results = fetch(urls, config(web, max_bytes=1_000_000, per_host=100))
    assert time.monotonic() - began < 6  # the deadline is 1.5 s
    assert [r.error for r in results[::2]] == [error for _, error, _ in faulty]
    assert [r.body for r in results[1::2]] == [
        web.files[f"/among/{i}.jpg"][1] for i in range(len(faulty))
    ]


@pytest.mark.parametrize(
    "path",
    [
        *("/many_headers", "/endless_header", "/endless_status", "/endless_hints"),
        *("/endless_trailers", "/endless_extension", "/endless", "/endless_answers"),
    ],
)
def test_a_flood_is_cut_after_a_moment(path):
    """Of an endless answer no more is read than the caps and what the kernel's buffers hold."""
    with fault_server() as web:
        fetch([web.url(path)], config(web, max_bytes=1_000_000))
        assert web.flooded < 20_000_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/beyond", picture(5)),
        ("/chunked", picture(5)),
        ("/chunked?beyond=what+is+this", picture(5)),
        ("/hints", picture(5)),
        ("/zipped", picture(5)),
        ("/encoded?in=gzip&as=x-gzip", picture(5)),
        ("/encoded?in=members", picture(5)),
        ("/encoded?in=padded", picture(5)),
        ("/encoded?in=zlib&as=deflate", picture(5)),
        ("/encoded?in=raw&as=deflate", picture(5)),
        ("/encoded?as=identity", picture(5)),
        ("/html", HTML),
        ("/svg", SVG),
        ("/zero", b""),
        ("/png_bomb", png_bomb()),
    ],
)
def test_odd_answers_that_are_whole_come_as_they_are(web, path, body):
    """Chunks, informational answers, packed bodies and bytes beyond the declared ones are read;
    what is no image is not told from one here.
    """
    (got,) = fetch([web.url(path)], config(web))
    assert (got.error, got.body == body) == (None, True)


def test_silence_between_two_reads_times_out_before_the_deadline(web):
    """`timeout_s` bounds the wait for the next byte."""
    (got,) = fetch([web.url("/silent/b")], config(web, timeout_s=0.2, deadline_s=30, retries=0))
    assert got.error == "timed out"
    assert got.seconds < 5


def test_the_deadline_is_of_all_attempts_together(web):
    """What is tried again after time-outs ends when the deadline does, attempts and waits in it."""
    knobs = config(web, timeout_s=0.2, deadline_s=1, retries=100, retry_wait_s=0.01)
    (got,) = fetch([web.url("/silent/c")], knobs)
    assert got.error == "timed out"
    assert 2 <= got.attempts <= 6
    assert got.seconds == pytest.approx(1, abs=0.3)


def test_a_wait_that_does_not_fit_into_the_deadline_is_not_waited_for(web):
    """A server that asks for a minute, with two seconds left, is not asked again."""
    began = time.monotonic()
    (got,) = fetch([web.url("/later?s=60")], config(web, retries=5))
    assert (got.error, got.attempts) == ("HTTP Error 429: Too Many Requests", 1)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("file:///etc/passwd", "scheme file is not allowed"),
        ("data:image/png;base64,iVBORw0KGgo=", "scheme data is not allowed"),
        ("ftp://127.0.0.1/a.jpg", "scheme ftp is not allowed"),
        ("/a.jpg", "no scheme"),
        ("", "no scheme"),
        ("http:///a.jpg", "no host"),
        ("http://./a.jpg", "no host"),
        ("http://127.0.0.1:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://[]@", "not a URL"),
        ("http://a[]@", "not a URL"),
        ("http://[];@", "not a URL"),
        ("http://\x000.[];@", "not a URL"),
        ("http://127.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://10.1.2.3/", "address 10.1.2.3 is not public"),
        ("http://169.254.169.254/", "address 169.254.169.254 is not public"),
        ("http://[fd00:ec2::254]/", "address fd00:ec2::254 is not public"),
        ("http://224.0.0.1/", "address 224.0.0.1 is not public"),
        ("http://[ff02::1]/", "address ff02::1 is not public"),
        ("http://[::1]/", "address ::1 is not public"),
        ("http://[::ffff:127.0.0.1]/", "address ::ffff:127.0.0.1 is not public"),
        ("http://[64:ff9b::7f00:1]/", "address 64:ff9b::7f00:1 is not public"),
        ("http://localhost:1/", "is not public"),
        ("http://2130706433/", "host 2130706433 is an odd spelling of an address"),
        ("http://0x7f000001/", "host 0x7f000001 is an odd spelling of an address"),
        ("http://0177.0.0.1/", "host 0177.0.0.1 is an odd spelling of an address"),
        ("http://017700000001/", "host 017700000001 is an odd spelling of an address"),
        ("http://127.1/", "host 127.1 is an odd spelling of an address"),
        ("http://①②⑦.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://user:pw@127.0.0.1/", "address 127.0.0.1 is not public"),
        ("http://a\x00b/", "not a URL"),
        ("http://a b/", "not a URL"),
    ],
)
def test_urls_that_lead_nowhere_allowed_are_refused_before_anything_is_sent(url, error):
    """Other schemes, private addresses in any spelling and what is no URL fail at once."""
    (got,) = fetch([url], DownloadConfig(retries=3, robots_txt=False))
    assert error in (got.error or "")
    assert (got.body, got.attempts, got.status) == (None, 1, None)


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_a_redirect_to_an_address_that_is_not_allowed_sends_nothing_there(web, address):
    """Only 127.0.0.1:PORT is allowed: redirects to others are refused before connecting."""
    try:
        listener = forbidden(address)
        with listener as other:
            (got,) = fetch([web.url(f"/redirect?to={other.url}")], config(web))
            assert got.error == f"address {address} is not public"
            assert got.final_url == other.url
            assert other.visits() == 0
    except OSError:
        pytest.skip(f"this machine has no {address}")


def test_the_port_of_an_allowed_host_is_part_of_the_permission(web):
    """127.0.0.1:PORT allows no other port of 127.0.0.1."""
    (got,) = fetch(["http://127.0.0.1:1/x.jpg"], config(web))
    assert got.error == "address 127.0.0.1 is not public"


def test_a_redirect_is_followed_to_an_allowed_address(web):
    """A relative redirect gives the bytes and the address that they came from."""
    web.image("/moved.jpg", seed=4)
    (got,) = fetch([web.url("/redirect?to=/moved.jpg")], config(web))
    assert got.body == web.files["/moved.jpg"][1]
    assert got.final_url == web.url("/moved.jpg")


@pytest.mark.parametrize(("allowed", "error"), [(2, None), (1, "too many redirects")])
def test_no_more_redirects_are_followed_than_allowed(web, allowed, error):
    """Two redirects need `max_redirects` of two."""
    web.image("/far.jpg", seed=4)
    (got,) = fetch(
        [web.url("/redirect?to=/redirect/b?to=/far.jpg")], config(web, max_redirects=allowed)
    )
    assert got.error == error


def test_an_allowed_name_may_resolve_to_a_private_address(web):
    """`localhost` is reached when it is named, through the resolver."""
    web.image("/named.jpg", seed=4)
    url = f"http://LocalHost:{web.port}/named.jpg"
    (got,) = fetch([url], config(web, allow_hosts=(f"localhost:{web.port}",)))
    assert got.body == web.files["/named.jpg"][1]
    assert got.host == "localhost"


@pytest.mark.parametrize("path", ["/flaky/once", "/busy/once"])
def test_what_fails_once_and_then_works_succeeds(web, path):
    """500, or 429 with a Retry-After, then 200: two attempts and a body."""
    (got,) = fetch([web.url(path)], config(web, deadline_s=5))
    assert (got.body, got.attempts, got.error) == (picture(7), 2, None)
    assert (got.seconds >= 1) == path.startswith("/busy")


@pytest.mark.parametrize(
    ("tag", "stops"),
    [
        ("noindex, nofollow", True),
        ("NoAI", True),
        ("curate: noimageai", True),
        ("otherbot: noai", False),
        ("otherbot: nofollow, noai", False),
        ("nofollow", False),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", False),
    ],
)
def test_x_robots_tag_is_obeyed_when_it_speaks_to_us(web, tag, stops):
    """A directive to all robots or to ours stops the image, one to another robot does not."""
    (got,) = fetch([web.url(f"/robots?tag={tag}")], config(web))
    assert got.error == (ROBOTS_TAG if stops else None)


def test_no_directives_ignores_the_tag(web):
    """An empty list of directives switches the check off."""
    (got,) = fetch([web.url("/robots?tag=noai")], config(web, disallowed_header_directives=()))
    assert got.error is None


def test_bad_urls_do_not_stop_good_ones(web):
    """Every URL of a bad list gets its own end, and the good ones their bytes."""
    bad = [
        "\ud800",
        "http://",
        "https://127.0.0.1:1/",
        "http://a b/",
        "javascript:alert(1)",
        "http://\\/",
    ]
    good = [web.image(f"/beside/{i}.jpg", seed=i) for i in range(5)]
    results = fetch(bad + good, config(web, deadline_s=5))
    assert all(r.error and r.body is None for r in results[: len(bad)])
    assert [r.body for r in results[len(bad) :]] == [
        web.files[f"/beside/{i}.jpg"][1] for i in range(5)
    ]


def test_a_connection_refused_says_so(web):
    """A closed port is an error of its own, tried again."""
    with forbidden() as other:
        url = other.url
    (got,) = fetch([url], config(web, allow_hosts=("127.0.0.2",), robots_txt=False))
    assert (got.error, got.attempts) == ("connection refused", 2)


@pytest.mark.parametrize("tls", [True, False])
def test_wrong_tls_is_an_error_that_is_not_tried_again(tls):
    """A certificate that nobody signed, and plain HTTP where TLS was promised, say so."""
    with self_signed() as pem, fault_server(pem if tls else None) as web:
        url = web.image("/secret.jpg").replace("http:", "https:")
        (got,) = fetch([url], config(web, robots_txt=False))
    error = "certificate is not trusted" if tls else "TLS handshake failed"
    assert (got.body, got.error, got.attempts) == (None, error, 1)
    assert not web.hits
