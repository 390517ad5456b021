"""Politeness: who we say we are, and what a page's X-Robots-Tag tells us."""

from __future__ import annotations

import re
from collections.abc import Iterable

from schemas.configs import DownloadConfig

ROBOTS_TAG = "Use of image disallowed by X-Robots-Tag directive"  # img2dataset's words
# directives with a value: what stands before their colon is no robot
_VALUED = frozenset({"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"})
_PRINTABLE = re.compile(r"[ -~]+")


def user_agent(config: DownloadConfig) -> str:
    """The agent of every request, with the operator's address or page where there is one.

    "curate/0.1 (image-text dataset curation; +https://example.org/crawl)". Raises ValueError where
    it cannot be sent in a header.
    """
    agent, contact = config.user_agent.strip(), config.contact.strip()
    if contact:
        inside = agent.endswith(")")
        agent = f"{agent[:-1]}; +{contact})" if inside else f"{agent} (+{contact})"
    if not _PRINTABLE.fullmatch(agent):
        raise ValueError(f"user_agent and contact make {agent!r}: write printable ASCII only")
    return agent


def robot_of(config: DownloadConfig) -> str:
    """The name under which robots.txt and X-Robots-Tag address us: the agent's product."""
    return re.split(r"[/\s]", config.user_agent.strip(), maxsplit=1)[0].lower()


def disallows(headers: Iterable[str], robot: str, directives: set[str]) -> bool:
    """Whether an X-Robots-Tag says one of the directives to all robots or to this one.

    "noai", "max-snippet:-1, noai", "curate: noai" do; "otherbot: nofollow, noai" does not.
    "none" is "noindex, nofollow".
    """
    for value in headers:
        addressee = ""
        for item in value.lower().split(","):
            directive = item.strip()
            name, colon, rest = (part.strip() for part in directive.partition(":"))
            if colon and _is_robot(name):
                addressee, directive = name, rest
            said = {directive, *(("noindex", "nofollow") if directive == "none" else ())}
            if addressee in ("", "*", robot) and said & directives:
                return True
    return False


def _is_robot(name: str) -> bool:
    """Whether what stands before a colon names a robot; else it is a directive, or half a date."""
    return name not in _VALUED and " " not in name
