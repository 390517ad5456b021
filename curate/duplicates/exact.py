"""Exact copies: equal bytes (sha256 of what came over the wire) or equal URL. A pair without an
image has no copies.

Pick it always: it costs one group-by. Each bucket scans two columns of `samples`.
"""

from __future__ import annotations

from functools import partial

from curate.dataset import Dataset
from curate.duplicates.search import DOWNLOADED, Search, buckets_for, stars
from schemas.configs import ExactDuplicates

_ROWS = {
    "sha256": DOWNLOADED.format(key="sha256", join=""),
    "url": DOWNLOADED.format(key="url", join="JOIN urls USING (uid)"),
}


def find(data: Dataset, config: ExactDuplicates) -> Search:
    """Search for downloaded pairs with an equal `config.by`; distance is 0."""
    of = buckets_for(data)
    tables = ("samples", "urls") if config.by == "url" else ("samples",)
    return Search(tables, config.by, of, partial(stars, data, _ROWS[config.by], of=of))
