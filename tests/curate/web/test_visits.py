"""One URL's way: what it does not do to other URLs, and what other URLs' answers do to it."""

from __future__ import annotations

import socket
import threading

import pytest

from curate.web import turns, visits
from curate.web.blocklist import Blocklist
from curate.web.fetch import Fetcher
from curate.web.robots import DISALLOWED
from schemas.configs import DownloadConfig
from tests.fault_server import fault_server, forbidden
from tests.fetching import config, fetch


def test_an_error_that_nobody_foresaw_is_its_rows_alone(monkeypatch):
    """Whatever a URL makes the code raise ends that URL; the part goes on."""

    def broken(base, location):
        raise KeyError(location)

    monkeypatch.setattr(visits, "joined", broken)
    with fault_server() as web:
        odd, good = fetch([web.url("/redirect?to=/x"), web.image("/x.jpg")], config(web))
    assert (odd.error, good.error) == ("client failed: KeyError", None)


def test_without_the_dispatcher_the_part_ends(monkeypatch):
    """That is no URL's fault: it is raised, not written into the rows."""
    monkeypatch.setattr(turns, "GIVE_UP_S", 0.1)

    async def ask(*_):
        raise ConnectionError("the actor died")

    async def keep(*_):
        pytest.fail("it is no row's end")

    with fault_server() as web:
        way = Fetcher(config(web), turns.Turns(ask, "w"), Blocklist(()))
        try:
            with pytest.raises(turns.Silent, match="the actor died"):
                way.fetch_all([web.image("/x.jpg")], keep)
        finally:
            way.close()


@pytest.mark.parametrize("to", ["refused", "forbidden", "silent", "unavailable"])
def test_a_robots_txt_that_leads_nowhere_forbids_all(to):
    """The redirect's own status does not mean that there is no robots.txt."""
    with fault_server() as web, forbidden() as other:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # and does not listen
            dead = f"127.0.0.1:{closed.getsockname()[1]}"
            place = {"refused": f"http://{dead}/robots.txt", "forbidden": other.url}
            place |= {"silent": web.url("/silent"), "unavailable": web.url("/status/503")}
            web.instead["/robots.txt"] = f"/redirect?to={place[to]}"
            knobs = config(web, allow_hosts=(web.address, dead), deadline_s=0.5)
            (got,) = fetch([web.image("/a.jpg")], knobs)
        assert (got.error or "").startswith("robots.txt cannot be had: ")
        assert web.hits["/a.jpg"] == other.visits() == 0


def test_dot_segments_do_not_lead_around_robots_txt_or_the_blocklist(tmp_path):
    """A listed address is matched as it is asked for."""
    listed = tmp_path / "list.txt"
    with fault_server() as web:
        web.serve("/robots.txt", b"User-agent: *\nDisallow: /private\n", "text/plain")
        listed.write_text(f"url {web.image('/blocked.jpg')}\n")
        private = [web.url(f"/a/{up}/private/x.jpg") for up in ("..", "%2e%2e", "%2E.")]
        blocked = [web.url(f"/a/{up}/blocked.jpg") for up in ("..", "%2e%2e")]
        got = fetch([*private, *blocked], config(web, blocklist=(str(listed),)))
        assert [one.error for one in got[:3]] == [DISALLOWED] * 3
        assert [one.error for one in got[3:]] == ["URL is on the blocklist"] * 2
        assert set(web.hits) == {"/robots.txt"}


def test_a_kept_connection_that_breaks_is_not_asked_twice():
    """Without retries the server sees a request once."""
    seen: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        for body in (b"x", None):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            seen.append(request.split(b" ")[1])
            if body:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
        connection.close()
        listener.settimeout(1)
        try:  # nobody may come again
            seen.append(listener.accept()[0].recv(65536).split(b" ")[1])
        except TimeoutError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        knobs = DownloadConfig(
            allow_hosts=(address,), robots_txt=False, retries=0, per_host=1, concurrency=1
        )
        first, second = fetch([f"http://{address}/first", f"http://{address}/second"], knobs)
        thread.join()
    assert (first.body, second.error, second.attempts) == (b"x", "connection reset", 1)
    assert seen == [b"/first", b"/second"]


def test_a_host_that_says_later_is_left_alone():
    """After its 429 with a long Retry-After no further request is sent to it; the others of its
    URLs have the same error, untried.
    """
    with fault_server() as web, fault_server() as other:
        urls = [web.url(f"/later/{i}?s=3600") for i in range(300)]
        good = f"http://localhost:{other.port}/good.jpg"
        other.image("/good.jpg")
        knobs = config(web, allow_hosts=(web.address, "localhost"), per_host=4, deadline_s=30)
        *results, fine = fetch([*urls, good], knobs)
        asked = sum(n for path, n in web.hits.items() if path.startswith("/later"))
    assert 1 <= asked <= 4
    assert {got.error for got in results} == {"HTTP Error 429: Too Many Requests"}
    assert sum(got.attempts for got in results) == asked
    assert fine.error is None


def test_a_pause_that_fits_into_the_deadline_is_waited_for():
    """A URL of a host that says "in a second" to another one comes after that second, and it costs
    it no retry.
    """
    with fault_server() as web:
        urls = [web.url("/busy/first"), web.image("/second.jpg")]
        knobs = config(web, per_host=1, deadline_s=10, retries=0, robots_txt=False)
        first, second = fetch(urls, knobs)
    assert (first.error, first.attempts) == ("HTTP Error 429: Too Many Requests", 1)
    assert (second.error, second.attempts) == (None, 1)
    assert 0.5 < second.seconds < 5
