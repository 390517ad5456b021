"""Random: the pairs with the lowest draw(seed, uid). The control that every other selector must
beat.

Pick `pool: downloaded` as the control for the whole curation, `survivors` as that for a selector.
"""

from curate.selectors.pool import Pool, ranked
from schemas.configs import RandomSelector


def select(pool: Pool, config: RandomSelector) -> str:
    """SQL of `count` pairs, a uniform sample without replacement; the same for every order of the
    list.
    """
    from curate.query import draw_sql

    draws = f"SELECT uid, {draw_sql(config.seed)} AS draw FROM pool"
    return ranked(draws, "draw, uid", pool.count)
