"""Balance: MetaCLIP's (2309.16671): terms of captions are looked up in a list of metadata, and
pairs of frequent terms are thinned to about `t` of each. Pick it last, after quality and dedup, for
a pool whose topics are as uneven as the web's.

1. An entry is in a caption where ` entry ` is in ` caption `, with blanks put around , . ; : ? ! `
   in the caption. Case counts, as it does for MetaCLIP. A caption is cut at its blanks and its runs
   of words are looked up, which is the same and does not depend on the number of entries.
2. count[e]: captions of the pool with entry e. A pair survives t if any of its entries passes
   u(seed, uid, e) < t / max(count[e], t), which is u * count[e] < t. So each pair has the smallest
   t that it survives, the least u * count[e] of its entries.
3. The `count` pairs that survive first are taken, ties by uid; those that need `t` or more are not
   where that is given. A pair without an entry is out.

DuckDB does all of it, out of core, on the original captions; 20 entries per caption make 20 million
hashes per million pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from curate.selectors.pool import Pool, ranked
from schemas.configs import BalanceSelector

log = logging.getLogger(__name__)

INDEX = "index.noun"  # WordNet's lemmas of nouns, one a line; its licence's lines begin with blanks

_WORDS = r"""
CREATE OR REPLACE TEMP VIEW captions AS
SELECT uid, string_split(regexp_replace(caption, '[,.;:?!`]', ' \0 ', 'g'), ' ') AS words
FROM urls SEMI JOIN pool USING (uid) WHERE caption IS NOT NULL
"""
_RUNS = (
    "list_transform(range(1, len(words) + {over}), lambda i: array_to_string(words[i:i+{up}], ' '))"
)
_WORD = r"\S*[\p{L}\p{N}]\S*"  # has a letter or a digit
_OWN = """
SELECT entry FROM (SELECT unnest(list_distinct({runs})) AS entry FROM captions) GROUP BY entry
HAVING count(*) >= {least} AND regexp_full_match(entry, '{word}( {word})?')
"""
_MATCHED = """
CREATE OR REPLACE TEMP VIEW matched AS
SELECT uid, entry FROM (SELECT uid, unnest(list_distinct({runs})) AS entry FROM captions)
SEMI JOIN entries USING (entry)
"""
_THRESHOLDS = """
CREATE OR REPLACE TEMP TABLE thresholds AS
WITH counts AS (SELECT entry, count(*) AS n FROM matched GROUP BY entry)
SELECT uid, min(CAST('0x' || {draw} AS UBIGINT) / 72057594037927936.0 * n) AS t
FROM matched JOIN counts USING (entry) GROUP BY uid
"""


def select(pool: Pool, config: BalanceSelector) -> str:
    """SQL of at most `count` pairs. Raises ValueError where the list of metadata cannot be read or
    is empty.
    """
    from curate.query import draw_sql

    pool.con.execute(_WORDS)
    lengths = _entries(pool, config)
    pool.con.execute(_MATCHED.format(runs=_runs(lengths)))
    draw = draw_sql(config.seed, "uid || chr(0) || entry")
    pool.con.execute(_THRESHOLDS.format(draw=draw))
    under = "" if config.t is None else f"WHERE t < {config.t!r}"
    order, what = "t, uid", f"SELECT uid, t FROM thresholds {under}"
    most = f"SELECT count(*), max(t) FROM ({what} ORDER BY {order} LIMIT {pool.count})"
    taken, t = pool.con.execute(most).fetchall()[0]
    matched = pool.con.execute("SELECT count(*) FROM thresholds").fetchall()[0][0]
    log.info(
        "selector %s: %d of %d pairs have an entry; t = %.4g leaves %d of them",
        *(config.name, matched, pool.rows, t or 0, taken),
    )
    return ranked(what, order, pool.count)


def _entries(pool: Pool, config: BalanceSelector) -> list[int]:
    """Make the table `entries`; returns how many words they have: each number that occurs."""
    listed = list(_listed(config.metadata)) if config.metadata else []
    listed += list(_lemmas(config.wordnet)) if config.wordnet else []
    pool.con.register("listed", pa.table({"entry": pa.array(listed, pa.string())}))
    own = "SELECT entry FROM listed WHERE false"
    if config.metadata is None:
        own = _OWN.format(runs=_runs([1, 2]), least=config.min_count, word=_WORD)
    pool.con.execute(
        f"CREATE OR REPLACE TEMP TABLE entries AS SELECT entry FROM listed UNION ({own})"
    )
    words = "SELECT len(string_split(entry, ' ')), count(*) FROM entries GROUP BY 1 ORDER BY 1"
    found = pool.con.execute(words).fetchall()
    log.info("selector %s: %d entries", config.name, sum(n for _, n in found))
    if not found and config.metadata is not None:
        raise ValueError(f"selector {config.name!r}: metadata: {config.metadata!r} has no entry")
    return [length for length, _ in found]


def _runs(lengths: list[int]) -> str:
    """SQL of all runs of so many words of `words`."""
    runs = [_RUNS.format(over=2 - n, up=n - 1) for n in lengths]
    return f"flatten([{', '.join(runs)}])" if runs else "CAST([] AS VARCHAR[])"


def _listed(path: str) -> Iterator[str]:
    with Path(path).open(encoding="utf-8") as lines:
        yield from (entry for line in lines if (entry := line.strip()))


def _lemmas(folder: str) -> Iterator[str]:
    with (Path(folder) / INDEX).open(encoding="utf-8") as lines:
        yield from (line.split(" ", 1)[0].replace("_", " ") for line in lines if line[0] != " ")
