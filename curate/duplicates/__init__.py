"""Duplicate finders: the menu. Each is `find(data, config) -> Search`; edges join pairs that count
as the same.

Equal pairs form a star around their lowest uid, at distance 0: n copies are n - 1 edges, and all
members of a star are duplicates of each other. An edge at a distance above 0 joins the lowest uids
of two stars and stands for all pairs of their members. So a flood of copies costs its own length,
and nothing is lost. What a finder holds for equal, it says: see perceptual.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from curate.dataset import Dataset
from curate.duplicates import exact, perceptual
from curate.duplicates.search import Search

FINDERS: Mapping[str, Callable[[Dataset, Any], Search]] = {
    "exact": exact.find,
    "perceptual": perceptual.find,
}
