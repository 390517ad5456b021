"""Who we say we are, and what X-Robots-Tag tells us."""

from __future__ import annotations

import pytest

from curate.web.politeness import disallows, robot_of, user_agent
from schemas.configs import DownloadConfig

DIRECTIVES = {"noai", "noindex"}


@pytest.mark.parametrize(
    ("agent", "contact", "sent"),
    [
        ("curate/0.1 (curation)", "", "curate/0.1 (curation)"),
        ("curate/0.1 (curation)", "me@a.org", "curate/0.1 (curation; +me@a.org)"),
        ("mine/2", " https://a.org ", "mine/2 (+https://a.org)"),
    ],
)
def test_the_agent_has_its_contact(agent, contact, sent):
    """The contact goes into the comment, or makes one."""
    assert user_agent(DownloadConfig(user_agent=agent, contact=contact)) == sent


@pytest.mark.parametrize("contact", ["a\r\nX-Evil: 1", "ü@a.org", "a\x00"])
def test_an_agent_that_no_header_can_carry_is_refused(contact):
    """Before the first request, with what was seen."""
    with pytest.raises(ValueError, match="printable ASCII"):
        user_agent(DownloadConfig(contact=contact))


@pytest.mark.parametrize(("agent", "robot"), [("Curate/0.1 (x)", "curate"), ("bot", "bot")])
def test_the_robot_is_the_product(agent, robot):
    """What stands before the slash, in lower case."""
    assert robot_of(DownloadConfig(user_agent=agent)) == robot


@pytest.mark.parametrize(
    ("headers", "stops"),
    [
        ([], False),
        (["noai"], True),
        (["nofollow", "NOINDEX"], True),
        (["nofollow, noai"], True),
        (["curate: noai"], True),
        (["curate: nofollow, noai"], True),
        (["otherbot: noai, curate: nofollow"], False),
        (["otherbot: nofollow, curate: noai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noai", "noindex"], True),
        (["noaiplease"], False),
        (["max-image-preview:large, noai"], True),
        (["max-snippet:-1, max-image-preview:large, noindex"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], True),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai"], True),
        (["otherbot: max-snippet:-1, noai"], False),
        (["curate: unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], True),
        (["*: noai"], True),
        (["none"], True),
        (["otherbot: none"], False),
        (["max-image-preview: none"], False),
    ],
)
def test_a_tag_stops_whom_it_names(headers, stops):
    """All robots, or the one before the colon, up to the next one that is named."""
    assert disallows(headers, "curate", DIRECTIVES) == stops
