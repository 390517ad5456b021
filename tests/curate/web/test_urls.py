"""What a stranger's text becomes before it is checked and asked for."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from curate.web.failures import Failure
from curate.web.urls import host_of, joined, parsed

PIECES = ["http:", "//", "/", "\\", "@", ":", "[", "]", "%", "%2e", "..", ".", ";", "?", "#", "a",
          "::1", "é", "①", "\0", " ", "99999", "xn--a", "\ud800"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@example("[]@")
@example("a[]@")
@example("[];@")
def test_any_text_is_a_url_or_a_failure(text):
    """Whatever yarl raises; of a URL that comes through all parts can be read."""
    for made in (lambda: parsed("http://" + text), lambda: joined(URL("http://h/p"), text)):
        try:
            url = made()
        except Failure:
            continue
        assert isinstance(host_of(url) + url.raw_path_qs + str(url.port), str)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("http://h/a/../private/x.jpg", "/private/x.jpg"),
        ("http://h/a/%2E%2e/private", "/private"),
        ("http://h/a/.%2e/./b?x=/../c", "/b?x=/../c"),
        ("http://h/../../x", "/x"),
        ("http://h/a/..", "/"),
        ("http://h/a/b/.", "/a/b/"),
        ("http://h/a/%41//..%2f.a/...", "/a/%41//..%2f.a/..."),
        ("http://h/é/../x", "/x"),
        ("http://h", "/"),
    ],
)
def test_dot_segments_are_undone_and_nothing_else_is(written, asked):
    """RFC 3986, 5.2.4, also where the dots are escaped; other escapes stay as they are written."""
    assert parsed(written).raw_path_qs == asked


def test_a_location_is_joined_and_has_no_dots_either():
    """Relative to where it was said, or absolute."""
    base = URL("http://h/p/q")
    assert str(joined(base, "../x")) == "http://h/x"
    assert str(joined(base, "%2e%2e/x")) == "http://h/x"
    assert str(joined(base, "http://g/a/../x")) == "http://g/x"
