"""Top: the pairs with the highest value of a column of `pairs`, ties by uid. DataComp's CLIP-score
baseline, which keeps all ties and one more (`>=` the N·f-th value); here the count is exact.
"""

from curate.selectors.pool import Pool, ranked
from schemas.configs import TopSelector

# DuckDB's types that have an order of size
SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
NUMBERS = (*SIGNED, *(f"U{kind}" for kind in SIGNED), "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")


def select(pool: Pool, config: TopSelector) -> str:
    """SQL of at most `count` pairs; a pair without a value (NULL or NaN) never passes.

    Raises ValueError where `by` is no numeric column of `pairs`.
    """
    from curate.query import number_sql, pairs_sql, quote, views

    pairs = pairs_sql(pool.con, views(pool.data), decided=False)
    have = {c[0]: c[1] for c in pool.con.execute(f"DESCRIBE {pairs}").fetchall()}
    if config.by not in have:
        scores = [c for c in have if c.startswith("scores_")]
        raise ValueError(
            f"selector {config.name!r}: by: {config.by!r} is no column of `pairs`; "
            f"its scores are {', '.join(scores) or 'none'}"
        )
    if not have[config.by].startswith(NUMBERS):
        raise ValueError(
            f"selector {config.name!r}: by: {config.by!r} is {have[config.by]}, not a number"
        )
    value = number_sql(quote(config.by))
    rows = f"""
    SELECT uid, value FROM pool JOIN (SELECT uid, {value} AS value FROM ({pairs})) USING (uid)
    WHERE value IS NOT NULL"""
    return ranked(rows, "value DESC, uid", pool.count)
