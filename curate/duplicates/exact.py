"""Exact copies: equal bytes (sha256 of what came over the wire), equal pixels (sha256 of what was
encoded) or equal URL. A pair without an image has no copies.

Pick it always: it costs one group-by. Each bucket scans two columns of `samples`.
"""

from __future__ import annotations

from functools import partial

from curate.duplicates.search import Scope, Search, buckets_for, stars
from schemas.configs import ExactDuplicates

_KEYS = {"sha256": "sha256", "pixels": "pixel_sha256", "url": "url"}


def tables(config: ExactDuplicates) -> tuple[str, ...]:
    """The tables that it reads."""
    return ("samples", "urls") if config.by == "url" else ("samples",)


def find(scope: Scope, config: ExactDuplicates) -> Search:
    """Search for downloaded pairs with an equal `config.by`; distance is 0."""
    of = buckets_for(scope.data)
    join = "JOIN urls USING (uid)" if config.by == "url" else ""
    rows = scope.rows(_KEYS[config.by], join=join)
    return Search(config.by, of, partial(stars, scope.data, rows, of=of))
