"""Duplicate finders: the menu. Each module has `tables(config)`, what it reads, and `find(scope,
config) -> Search`; edges join pairs that count as the same.

Where many are the same they form a star around one of them, the leader: n copies are n - 1 edges,
and all members of a star are duplicates of each other. An edge between two leaders stands for all
pairs of their members. So a flood of copies costs its own length, and whoever is removed is within
the finder's threshold of a pair that stays. Stars of later searches may join earlier ones: where a
pair is in two of them, they are one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

from curate.duplicates.search import Scope, Search
from schemas.configs import DuplicatesConfig

KINDS = ("exact", "blank", "perceptual", "semantic", "text")  # the first that holds is the reason


class Finder(NamedTuple):
    """The two functions of a kind."""

    tables: Callable[[Any], tuple[str, ...]]
    find: Callable[[Scope, Any], Search]


def finder(config: DuplicatesConfig) -> Finder:
    """The finder that a config asks for."""
    match config.kind:
        case "exact":
            from curate.duplicates import exact

            return Finder(exact.tables, exact.find)
        case "blank":
            from curate.duplicates import blank

            return Finder(blank.tables, blank.find)
        case "perceptual":
            from curate.duplicates import perceptual

            return Finder(perceptual.tables, perceptual.find)
        case "semantic":
            from curate.duplicates import semantic

            return Finder(semantic.tables, semantic.find)
        case "text":
            from curate.duplicates import text

            return Finder(text.tables, text.find)
        case _:
            assert_never(config.kind)
