"""The pool's pairs that have an embedding, and their embeddings in any order, in a file.

A pair counts where the embedding of its original caption's row is there, finite and not all zeros,
which is no direction. DuckDB joins and sorts uids alone: rows of 2 kB it cannot sort in little
memory. The embeddings are copied from their parts into a scratch file, each to its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.selectors.pool import Pool
from models.kmeans import Matrix
from schemas.configs import D4Selector, DensitySelector, FacilitySelector, KCenterSelector

Clustered = D4Selector | DensitySelector
Grouped = FacilitySelector | KCenterSelector
Stored = np.ndarray[Any, np.dtype[Any]]  # (n, d), of the type of the column: float16
READ = 8192  # rows that DuckDB hands over at a time

_USABLE = """
CREATE OR REPLACE TEMP TABLE usable AS
SELECT uid, part FROM pool SEMI JOIN (
  SELECT uid FROM {table}
  WHERE caption_id = uid AND isfinite(list_min({column})) AND isfinite(list_max({column}))
  AND (list_min({column}) < 0 OR list_max({column}) > 0)) USING (uid)
"""


def usable(pool: Pool, config: Clustered | Grouped) -> int:
    """Make the table `usable` (uid, part); returns how many pairs it has. Raises ValueError where
    the embeddings are not there.
    """
    from curate.query import quote

    table, column = quote(_table(pool, config)), quote(config.column)
    pool.con.execute(_USABLE.format(table=table, column=column))
    return count(pool, "usable")


def _table(pool: Pool, config: Clustered | Grouped) -> str:
    table = f"scores_{config.embeddings}"
    have = [t for t in pool.data.tables() if t.startswith("scores_") and "@" not in t]
    described = pool.con.execute(f'DESCRIBE "{table}"').fetchall() if table in have else []
    if config.column not in [row[0] for row in described]:
        raise ValueError(
            f"selector {config.name!r}: {table} has no {config.column}; name in `embeddings` a "
            f"scorer with `embeddings: true` (there are {', '.join(have) or 'no scores'})"
        )
    return table


def count(pool: Pool, table: str) -> int:
    """Rows of a table of the connection."""
    from curate.query import select

    return int(select(pool.con, f"SELECT count(*) AS n FROM {table}")["n"][0].as_py())


def runs(pool: Pool, sql: str, by: str, most: int) -> Iterator[pa.Table]:
    """The rows of `sql` as tables of at most `most` rows, each of rows that are next to each other
    and equal in the column `by`. Meanwhile the connection can do nothing else.
    """
    held: list[pa.Table] = []
    for batch in pool.con.sql(sql).to_arrow_reader(READ):
        rows = pa.Table.from_batches([batch])
        while rows.num_rows:
            if held and rows[by][0] != held[0][by][0]:
                yield pa.concat_tables(held)
                held = []
            keys = rows[by].to_numpy()
            other = np.flatnonzero(keys != keys[0])
            end = min(other[0] if len(other) else len(keys), most - sum(map(len, held)))
            held.append(rows.slice(0, end))
            rows = rows.slice(end)
            if sum(map(len, held)) == most:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


@contextmanager
def embeddings(pool: Pool, config: Clustered | Grouped, listed: str) -> Iterator[Stored]:
    """The embeddings of a table (uid, part, place), each at its place, for the block.

    place: 0 to n - 1. They are mapped from a file of as many bytes as they have in the dataset.
    """
    rows = count(pool, listed)
    sql = f"SELECT uid, part, place FROM {listed} ORDER BY part, uid"
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        found: Stored = np.zeros((0, 0), dtype=np.float16)
        for some in runs(pool, sql, "part", max(1, rows)):
            part, table = some["part"][0].as_py(), f"scores_{config.embeddings}"
            have = originals(pool.data, table, part, config.column)
            have = have.take(pc.index_in(some["uid"], have["uid"].combine_chunks()))
            chunks = [
                c.flatten().to_numpy(zero_copy_only=False) for c in have[config.column].chunks
            ]
            values = np.concatenate(chunks).reshape(len(some), -1)
            if not len(found):
                shape = (rows, values.shape[1])
                found = np.memmap(f"{scratch}/rows", values.dtype, "w+", shape=shape)
            found[some["place"].to_numpy()] = values
        yield found


def originals(data: Dataset, table: str, part: int, column: str) -> pa.Table:
    """uid and `column` of a part's original captions."""
    scores = data.read(table, part, ["uid", "caption_id", column])
    return scores.filter(pc.equal(scores["uid"], scores["caption_id"])).select(["uid", column])


def units(stored: Stored) -> Matrix:
    """The rows at length 1, in float32; equal directions are equal bytes."""
    rows = stored.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows += 0  # no -0
    return rows
