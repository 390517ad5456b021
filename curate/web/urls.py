"""URLs: a stranger's text -> an address that can be asked, or a Failure that says it is none."""

from __future__ import annotations

import re

from yarl import URL

from curate.web.blocklist import without_dots
from curate.web.failures import Failure

_EXACT = re.compile(r"[!-~]+")  # a URL that can be sent as it is written


def parsed(url: str) -> URL:
    """As it is written, but for what cannot be sent so, and without dot segments.

    Those are undone before the blocklist and robots.txt see them: a server does it afterwards.
    Raises Failure.
    """
    try:
        return _checked(URL(url, encoded=_EXACT.fullmatch(url) is not None))
    except Exception as error:  # yarl raises more than ValueError: an IndexError for `http://[]@`
        raise Failure("not a URL") from error


def joined(base: URL, location: str) -> URL:
    """Where a Location header leads. Raises Failure."""
    found = parsed(location)
    try:
        return _checked(base.join(found))
    except Exception as error:  # as above
        raise Failure("not a URL") from error


def host_of(url: URL) -> str:
    """The host in lower case, without the dot that some write at its end."""
    return (url.raw_host or "").lower().rstrip(".")


def host_in(url: str) -> str:
    """The same of a stranger's text; "" where it is no URL."""
    try:
        return host_of(parsed(url))
    except Failure:
        return ""


def _checked(url: URL) -> URL:
    """`url` without dot segments; what yarl finds out late is found out here."""
    if url.raw_host and (path := without_dots(url.raw_path)) != url.raw_path:
        url = url.with_path(path, encoded=True, keep_query=True)
    _ = (str(url), url.raw_host, url.port, url.raw_path_qs)
    return url
