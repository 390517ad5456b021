"""The rules of a robots.txt: the RFC's own examples, and files of every kind of badness."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.web.robots import MAX_BYTES, Rules

SIMPLE = b"""
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


def allowed(body: str | bytes, path: str, robot: str = "curate") -> bool:
    raw = body.encode() if isinstance(body, str) else body
    return Rules.parse(raw, robot).allows(path)


@pytest.mark.parametrize(
    ("robot", "path", "may"),
    [
        ("otherbot", "/a/picture.gif", False),
        ("otherbot", "/a/picture.gif?x", True),
        ("otherbot", "/example/page.html", False),
        ("otherbot", "/publications/", True),
        ("otherbot", "/", True),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("FooBot", "/publications/", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("barbot", "/example/picture.gif", True),
        ("quxbot", "/example/page.html", True),
        ("quxbot", "/a/picture.gif", True),
    ],
)
def test_the_simple_example_of_the_rfc(robot, path, may):
    """Section 5.1: groups of one and of several robots, an empty one, and all the others."""
    assert allowed(SIMPLE, path, robot) is may


def test_the_longest_match_decides():
    """Section 5.2: the more specific rule wins, whichever it is."""
    body = "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n"
    assert allowed(body, "/example/page/", "foobot")
    assert not allowed(body, "/example/page/disallowed.gif", "foobot")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz"),
        ("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar"),
        ("/foo/bar?baz=https%3A%2F%2Ffoo.bar", "/foo/bar?baz=https://foo.bar"),
        ("/foo/bar/ツ", "/foo/bar/%E3%83%84"),
        ("/foo/bar/%E3%83%84", "/foo/bar/ツ"),
        ("/foo/bar/%e3%83%84", "/foo/bar/%E3%83%84"),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz"),
        ("/foo/bar/baz", "/foo/bar/%62%61%7A"),
        ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html"),
        ("/path/foo-%24", "/path/foo-$"),
        ("/a:b", "/a%3Ab"),
        ("/a b", "/a%20b"),
    ],
)
def test_spellings_that_the_rfc_calls_equal_match(pattern, path):
    """Section 2.2.2 and its table, 2.2.3 for `*` and `$` that mean themselves."""
    assert not allowed(f"User-agent: *\nDisallow: {pattern}$", path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/a%2Fb", "/a/b"),  # an escaped slash is no separator
        ("/a%3Fb", "/a?b"),
        ("/path/file-with-a-%2A.html", "/path/file-with-a-star.html"),
        ("/fish", "/Fish"),
        ("/fish*.php$", "/fish.php5"),
        ("/fish$", "/fish/"),
        ("/a*b*c$", "/acb"),
        ("/ab*ba$", "/aba"),  # the ends may not overlap
        ("fish", "/fish"),  # no path begins so
    ],
)
def test_spellings_that_differ_do_not_match(pattern, path):
    """Case, escaped separators and the end of a path matter."""
    assert allowed(f"User-agent: *\nDisallow: {pattern}", path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/fish", "/fish/salmon.html"),
        ("/fish*", "/fishheads?id=1"),
        ("/*.php", "/folder/filename.php?parameters"),
        ("/*.php$", "/a.php/b.php"),
        ("/fish*.php", "/fishheads/catfish.php"),
        ("/a**b***$", "/axxbyy"),
        ("*.gif$", "/x.gif"),
        ("/*/c*e", "/a/b/cde"),
        ("/$", "/"),
        ("/", ""),
    ],
)
def test_wildcards(pattern, path):
    """`*` is any octets, also none; `$` is the end."""
    assert not allowed(f"User-agent: *\nDisallow: {pattern}", path)


def test_allow_wins_where_both_match_as_long():
    """Section 2.2.2: of equal rules the least restrictive one."""
    for lines in ("Allow: /a\nDisallow: /a", "Disallow: /a\nAllow: /a"):
        assert allowed(f"User-agent: *\n{lines}", "/a/b")


def test_prefixes_and_patterns_are_weighed_together():
    """The longer decides, and Allow where both are as long, whichever has a wildcard."""
    assert not allowed("User-agent: *\nDisallow: /a/b/c\nAllow: /*b", "/a/b/c")
    assert allowed("User-agent: *\nAllow: /a/b/c\nDisallow: /*b", "/a/b/c")
    assert not allowed("User-agent: *\nDisallow: /a/*/c\nAllow: /a/b", "/a/b/c")
    assert allowed("User-agent: *\nDisallow: /*bc\nAllow: /abc", "/abc")
    assert allowed("User-agent: *\nDisallow: /abc\nAllow: /*bc", "/abc")


def test_groups_of_one_robot_are_one_group():
    """Section 2.2.1: rules of all its groups, whatever stands between."""
    body = (
        "User-agent: Curate\nDisallow: /a\n\nUser-agent: *\nDisallow: /c\n\n"
        "user-agent: other\nUSER-AGENT: cuRATE/2.0 (with words)\ndisallow: /b\n"
    )
    assert [allowed(body, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    assert [allowed(body, path, "other") for path in ("/a", "/b", "/c")] == [True, False, True]


def test_a_product_token_is_compared_whole():
    """`curate` is neither `curator` nor `cur`."""
    body = "User-agent: curator\nUser-agent: cur\nUser-agent: curate-news\nDisallow: /"
    assert allowed(body, "/")


def test_other_lines_do_not_end_a_group():
    """Sitemap, Crawl-delay, nonsense and blank lines between agents and rules change nothing."""
    body = (
        "Sitemap: http://x/s.xml\nUser-agent: a\nCrawl-delay: 5\n\nnonsense\n: \nDisallow /x\n"
        "User-agent: curate\nHost: x\nSitemap: y\nDisallow: /b # why\nCrawl-delay: 1\nDisallow: /c"
    )
    for robot in ("a", "curate"):
        assert [allowed(body, p, robot) for p in ("/b", "/c", "/x")] == [False, False, True]


def test_rules_before_any_agent_are_nobodys():
    """They are skipped, and so is an empty pattern, which still ends the list of agents."""
    body = "Disallow: /\nUser-agent: curate\nDisallow:\nUser-agent: other\nDisallow: /"
    assert allowed(body, "/x")
    assert not allowed(body, "/x", "other")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end(end):
    """CR, LF and CRLF, with a byte order mark before them."""
    body = end.join(["\ufeffUser-agent: *", "Disallow: /a", "", "Disallow: /b"])
    assert [allowed(body, p) for p in ("/a", "/b", "/c")] == [False, False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>User-agent: * Disallow: /</body></html>",
        b"\x00\xff\xfe" * 100,
        "User-agent: *\nDisallow: /".encode("utf-16"),
        b"User-agent\nDisallow: /",
        b":\n:/\nUser-agent:\nDisallow: /",
    ],
)
def test_what_is_no_robots_txt_forbids_nothing(body):
    """Lines that cannot be read are skipped."""
    assert allowed(body, "/x")


def test_only_the_first_500_kib_are_read():
    """Rules behind them do not count, nor does a line that is cut there."""
    head = b"User-agent: *\nDisallow: /early\n"
    line = b"Disallow: /late/and/long\n"
    room = MAX_BYTES - len(head) - len(b"Disallow: /late")
    body = head + b"#" * (room - 1) + b"\n" + line + b"Disallow: /later\n"
    assert body[:MAX_BYTES].endswith(b"\nDisallow: /late")
    assert not allowed(body, "/early")
    assert allowed(body, "/late/and/long")
    assert allowed(body, "/later")
    assert not allowed(head + body[len(head) + room :], "/late/and/long")


def naive(pattern: str, path: str) -> bool:
    """Does the pattern match? By trying everything."""
    if not pattern or pattern == "$":
        return not pattern or not path
    if pattern[0] == "*":
        return any(naive(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return path[:1] == pattern[0] and naive(pattern[1:], path[1:])


@settings(max_examples=400, deadline=None)
@given(st.text("ab*/$", max_size=8), st.text("ab/", max_size=10))
def test_matching_agrees_with_trying_everything(pattern, path):
    """For short patterns and paths, wherever `*` stands; `$` is special at the end alone."""
    pattern, path = "/" + pattern[:-1].replace("$", "") + pattern[-1:], "/" + path
    assert allowed(f"User-agent: *\nDisallow: {pattern}", path) is not naive(pattern, path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=30))
def test_no_file_and_no_path_breaks_the_parser(body, path):
    """Any bytes are a robots.txt, any text is a path."""
    for prefix in (b"", b"User-agent: *\nDisallow: /"):
        assert allowed(prefix + body, "/" + path) in (True, False)


@pytest.mark.parametrize(
    "line",
    [
        "/*" + "a*" * 60 + "b",
        "/" + "*a" * 200_000 + "b",
        "/*" + "aa*" * 100 + "$",
        "/" + "*" * 99999,
    ],
)
def test_hostile_patterns_take_no_time(line):
    """Nested wildcards against a long path of what they look for: milliseconds."""
    rules = Rules.parse(f"User-agent: *\nDisallow: {line}".encode(), "curate")
    began = time.perf_counter()
    rules.allows("/" + "a" * 100_000)
    assert time.perf_counter() - began < 0.5  # 10 ms; a matcher that goes back takes years


@pytest.mark.parametrize(
    "body",
    [
        b"".join(b"user-agent:%x\n" % i for i in range(20_000)) + b"allow:/\n" * 40_000,
        b"".join(b"user-agent:%x\nallow:/%x\n" % (i, i) for i in range(25_000)),
        b"user-agent:*\nuser-agent:curate\ndisallow:/a\n" * 12_000,
        b"user-agent:*\n" + b"user-agent:curate\n" * 10_000 + b"disallow:/a\n" * 25_000,
    ],
)
def test_agents_and_rules_without_end_are_read_in_a_moment(body):
    """500 KiB of groups cost what the file is long, not rules times agents, in time and memory."""
    tracemalloc.start()
    began = time.process_time()
    rules = Rules.parse(body, "curate")
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rules.allows("/a") is (b"disallow" not in body)
    assert seconds < 3  # under tracemalloc; without it 0.3
    assert peak < 60_000_000


def test_a_huge_file_of_prefixes_is_looked_up_not_tried():
    """30 000 rules cost a URL no more than a few."""
    lines = "".join(f"\nDisallow: /{i:x}/" for i in range(30_000))
    rules = Rules.parse(f"User-agent: *{lines}\nAllow: /abc/x".encode(), "curate")
    assert len(rules) == 30_001
    began = time.perf_counter()
    found = [rules.allows(path) for path in ("/abc/y", "/abc/x", "/752f/x", "/7530/x")]
    assert time.perf_counter() - began < 0.03  # alone 0.1 ms; one by one 30 ms
    assert found == [False, True, False, True]
