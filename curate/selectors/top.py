"""Top: the pairs with the highest value of a column of `pairs`, ties by uid. DataComp's CLIP-score
baseline, which keeps all ties and one more (`>=` the N·f-th value); here the count is exact.
"""

from __future__ import annotations

import logging
import math
from fractions import Fraction

from curate.selectors.pool import Pool, ranked
from schemas.configs import TopSelector

log = logging.getLogger(__name__)

# DuckDB's types that have an order of size
SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
NUMBERS = (*SIGNED, *(f"U{kind}" for kind in SIGNED), "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")


def select(pool: Pool, config: TopSelector) -> str:
    """SQL of at most `count` pairs; a pair without a value (NULL or NaN) never passes.

    Raises ValueError where `by` is no numeric column of `pairs`.
    """
    return ranked(valued(pool, config.name, "by", config.by), "value DESC, uid", pool.count)


def best(pool: Pool, selector: str, knob: str, by: str, fraction: float) -> int:
    """Make `best`: uid and part of the floor(N * fraction) pairs of the pool's N with the highest
    value, ties by uid; returns how many there are. A pair without a value never passes.
    """
    asked = math.floor(pool.rows * Fraction(repr(fraction)))
    rows = ranked(valued(pool, selector, knob, by), "value DESC, uid", asked)
    best = f"SELECT uid, part FROM pool SEMI JOIN ({rows}) USING (uid)"
    pool.con.execute(f"CREATE OR REPLACE TEMP TABLE best AS {best}")
    found = pool.con.execute("SELECT count(*) FROM best").fetchall()[0][0]
    text = "selector %s: %d of %d pairs are in the top %g by %s"
    log.info(text, selector, found, pool.rows, fraction, by)
    return int(found)


def valued(pool: Pool, selector: str, knob: str, by: str) -> str:
    """SQL of uid and value of the pairs of the pool that have a value in this column of `pairs`.

    knob: that names the column. Raises ValueError where it is no numeric column.
    """
    from curate.query import number_sql, pairs_sql, quote, views

    pairs = pairs_sql(pool.con, views(pool.data), decided=False)
    have = {c[0]: c[1] for c in pool.con.execute(f"DESCRIBE {pairs}").fetchall()}
    if by not in have:
        scores = [c for c in have if c.startswith("scores_")]
        raise ValueError(
            f"selector {selector!r}: {knob}: {by!r} is no column of `pairs`; "
            f"its scores are {', '.join(scores) or 'none'}"
        )
    if not have[by].startswith(NUMBERS):
        raise ValueError(f"selector {selector!r}: {knob}: {by!r} is {have[by]}, not a number")
    value = number_sql(quote(by))
    return f"""
    SELECT uid, value FROM pool JOIN (SELECT uid, {value} AS value FROM ({pairs})) USING (uid)
    WHERE value IS NOT NULL"""
