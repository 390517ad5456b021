"""Blank images: equal pHashes that say nothing, and thumbnails that hardly differ.

Flat and near-constant images have a hash with next to no ones (or zeros), whatever their colour and
size: as near copies they would be one giant group. Here the thumbnail decides: each colour is a
group of its own, and a row without a thumbnail joins nobody. The search is that of the near copies
(copies.py), at radius 0: a group costs its own length.

Pick it with the perceptual finder, which leaves out what this one looks at.
"""

from __future__ import annotations

from curate.duplicates.copies import Copies, search
from curate.duplicates.search import Scope, Search
from schemas.configs import BlankDuplicates


def tables(config: BlankDuplicates) -> tuple[str, ...]:
    """The tables that it reads."""
    return ("samples",)


def find(scope: Scope, config: BlankDuplicates) -> Search:
    """Search for pairs of one pHash with fewer than `config.min_distinct_bits` ones or zeros, whose
    thumbnails are within `config.max_rms`; distance is 0.
    """
    where = f"least(bit_count(phash), 64 - bit_count(phash)) < {config.min_distinct_bits}"
    copies = Copies(f"duplicates_{config.name}", "phash", where, 0, config.max_rms)
    return search(scope, copies, "blank")
