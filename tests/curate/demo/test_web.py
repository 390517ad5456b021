"""The bad web, through real requests."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.demo.web import Web, serve

BODY = bytes(range(256)) * 8


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.png").write_bytes(BODY)
    hows = ("ok", "dead_404", "flaky_500", "lying_html", "truncated", "forbidden_redirect")
    (tmp_path / "web.json").write_text(
        json.dumps({f"/img/{how}/a.png": {"file": "a.png", "how": how} for how in hows})
    )
    with serve(tmp_path) as running:
        yield running


def _get(web: Web, how: str) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(f"{web.url}/img/{how}/a.png", timeout=5) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_good_file(web: Web):
    """A good URL gives the file's bytes and type, and the visit is counted."""
    assert _get(web, "ok") == (200, "image/png", BODY)
    assert web.requests == {"/img/ok/a.png": 1}


@pytest.mark.parametrize(
    "path", ["/img/dead_404/a.png", "/nowhere", "/files/a.png", "/../web.json"]
)
def test_dead(web: Web, path: str):
    """A dead URL, and every path that is not in the plan, is not found."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(web.url + path, timeout=5)


def test_flaky_answers_500_once(web: Web):
    """A flaky URL fails at the first visit and is fine from then on."""
    with pytest.raises(urllib.error.HTTPError, match="500"):
        _get(web, "flaky_500")
    assert [_get(web, "flaky_500")[2] for _ in range(2)] == [BODY, BODY]


def test_html_that_lies(web: Web):
    """A lying URL answers 200 with HTML under an image's type."""
    status, kind, body = _get(web, "lying_html")
    assert (status, kind) == (200, "image/jpeg")
    assert body.startswith(b"<!doctype html>")


def test_truncated_body(web: Web):
    """A truncated answer ends before its Content-Length."""
    with pytest.raises(http.client.IncompleteRead) as caught:
        _get(web, "truncated")
    assert BODY.startswith(caught.value.partial)
    assert len(caught.value.partial) == len(BODY) // 2


def test_redirect_to_the_forbidden_address(web: Web):
    """The redirect names 127.0.0.2 at the same port; only who follows it is counted there."""
    client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    client.request("GET", "/img/forbidden_redirect/a.png")
    answer = client.getresponse()
    client.close()
    target = f"http://127.0.0.2:{web.port}/img/forbidden_redirect/a.png"
    assert (answer.status, answer.headers["Location"]) == (302, target)
    assert web.forbidden_hits == 0
    if web.watches_forbidden:
        assert _get(web, "forbidden_redirect")[2] == b"internal"
        assert web.forbidden_hits == 1


def test_connection_is_kept_and_pipelined(web: Web):
    """Several requests share a connection; those sent at once are answered in their order."""
    client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    for how in ("ok", "dead_404", "lying_html", "ok"):
        client.request("GET", f"/img/{how}/a.png")
        body = client.getresponse().read()
    address = client.sock.getsockname()
    assert body == BODY
    client.request("HEAD", "/img/ok/a.png")
    answer = client.getresponse()
    assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(len(BODY)))
    assert client.sock.getsockname() == address
    client.close()
    with socket.create_connection(("127.0.0.1", web.port), 5) as raw:
        raw.sendall(
            b"GET /no HTTP/1.1\r\n\r\nGET /img/ok/a.png HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        with raw.makefile("rb") as stream:
            said = stream.read()
    assert said.startswith(b"HTTP/1.1 404")
    assert said.endswith(b"\r\n\r\n" + BODY)


def test_other_methods(web: Web):
    """Nothing but GET and HEAD is answered."""
    client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=5)
    client.request("DELETE", "/img/ok/a.png")
    assert client.getresponse().status == 405
    client.close()


def test_same_port_again(web: Web, tmp_path: Path):
    """A taken port is an error; once the web has ended, open clients or not, it is free."""
    with pytest.raises(OSError, match="in use"), serve(tmp_path, port=web.port):
        pass
    with serve(tmp_path) as other:
        client = http.client.HTTPConnection("127.0.0.1", other.port, timeout=5)
        client.request("GET", "/img/ok/a.png")
        client.getresponse().read()
    with serve(tmp_path, port=other.port) as again:
        assert _get(again, "ok")[2] == BODY
    client.close()


def test_no_plan(tmp_path: Path):
    """A folder without a plan is refused by name."""
    with pytest.raises(ValueError, match=r"web\.json: no plan of a web"), serve(tmp_path):
        pass
