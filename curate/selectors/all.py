"""All: every pair of the pool, ranked by uid. The upper bound in data, and the export of a whole
curation.
"""

from curate.selectors.pool import Pool, ranked
from schemas.configs import AllSelector


def select(pool: Pool, config: AllSelector) -> str:
    """SQL of all pairs."""
    return ranked("SELECT uid FROM pool", "uid", pool.count)
