"""D4: semantic copies out, then of the others those that are the least typical of their cluster
(2308.12284).

Pick it when the pool has many near copies and many pairs of the same kind.
1. Cluster the pool's N pairs that have an embedding.
2. SemDeDup (2303.09540, as its code has it): in each cluster the pairs go from the farthest from
   the centroid to the nearest, ties by uid; a pair is as redundant as its largest cosine to an
   earlier one. The most redundant go until floor(N * dedup_fraction) remain, so that the code's
   threshold 1 - eps is found and not given. An equal embedding is more redundant than any cosine.
3. Cluster what remains anew; the nearest to their centroids go until `count` remain (SSL
   prototypes, 2206.14486).

Where `count` is more than floor(N * dedup_fraction), step 2 leaves `count` and step 3 nothing to
do: a warning says so.

In a cluster of more than WINDOW * BLOCK pairs (65 536) a pair is compared with as many before it:
what is near it is about as far from the centroid.

Measured on 100 000 pairs of 128 dimensions: 11 CPU seconds; it grows as N^1.5, so a million is some
350, by extrapolation. The embeddings are read four times and written twice, to scratch. Memory: the
window, three float32 copies of `train_rows` embeddings, and DuckDB's, whose rows are narrow.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.selectors.centroids import clusters_of
from curate.selectors.embedded import Stored, embeddings, runs, units, usable
from curate.selectors.pool import Pool, ranked
from models.kmeans import BLOCK, Matrix
from schemas.configs import D4Selector
from schemas.tables import UID

log = logging.getLogger(__name__)
Floats = np.ndarray[Any, np.dtype[np.float32]]

MOST_CLUSTERS = 50_000  # SemDeDup's, for 440 M pairs
WINDOW = 64  # blocks of BLOCK pairs
COPY, FIRST = np.float32(2), np.float32(-2)  # beyond any cosine

_SORTED = """
CREATE OR REPLACE TEMP TABLE sorted AS
SELECT uid, part, cluster, distance,
       row_number() OVER (ORDER BY cluster, distance DESC, uid) - 1 AS place
FROM usable JOIN {codes} USING (uid)
"""
_REMAINDER = """
CREATE OR REPLACE TEMP TABLE remainder AS
SELECT uid, part FROM usable JOIN read_parquet({file}) USING (uid)
ORDER BY redundancy, uid LIMIT {rows}
"""


def select(pool: Pool, config: D4Selector) -> str:
    """SQL of `count` pairs, the farthest from its centroid first. Raises ValueError where the
    embeddings are not there.
    """
    from curate.query import quote

    rows = usable(pool, config)
    count = min(pool.count, rows)
    remain = math.floor(rows * Fraction(repr(config.dedup_fraction)))
    if remain < count:
        log.warning(
            "selector %s: dedup_fraction %g of %d pairs is less than the %d asked for, which"
            " deduplication leaves instead",
            *(config.name, config.dedup_fraction, rows, count),
        )
        remain = count
    _deduplicate(pool, config, clusters_of(pool, config, MOST_CLUSTERS).codes, remain)
    codes = clusters_of(pool, config, MOST_CLUSTERS, "remainder", "_prototypes").codes
    chosen = f"SELECT uid, cluster, distance FROM {quote(codes)} SEMI JOIN remainder USING (uid)"
    return ranked(chosen, "distance DESC, uid", count, cluster="cluster")


def _deduplicate(pool: Pool, config: D4Selector, codes: str, remain: int) -> None:
    """Make the table `remainder` (uid, part) of so many pairs."""
    from curate.query import literal, quote

    schema = pa.schema([UID, pa.field("redundancy", pa.float32())])
    pool.con.execute(_SORTED.format(codes=quote(codes)))
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        file = f"{scratch}/redundancy.parquet"
        with embeddings(pool, config, "sorted") as stored, pq.ParquetWriter(file, schema) as out:
            blocks = runs(pool, "SELECT * FROM sorted ORDER BY place", "cluster", BLOCK)
            for uids, found in redundancies(blocks, stored):
                out.write_table(pa.table([uids, pa.array(found)], schema=schema))
        pool.con.execute(_REMAINDER.format(file=literal(file), rows=remain))


def redundancies(
    blocks: Iterable[pa.Table], stored: Stored
) -> Iterator[tuple[pa.ChunkedArray, Floats]]:
    """uid and redundancy of the blocks of clusters, which come in SemDeDup's order.

    blocks: uid, cluster, distance, place; stored: the embeddings by place.
    """
    cluster, last = None, np.float32(-1)
    window: deque[Matrix] = deque(maxlen=WINDOW)
    seen: set[bytes] = set()  # of the embeddings at the last distance
    for block in blocks:
        if block["cluster"][0] != cluster:
            cluster, last = block["cluster"][0], np.float32(-1)
            window.clear()
        first = block["place"][0].as_py()
        rows, distances = units(stored[first : first + len(block)]), block["distance"].to_numpy()
        found = redundancy(rows, window)
        for at, distance in enumerate(distances):
            if distance != last:
                last = distance
                seen.clear()
            if (raw := rows[at].tobytes()) in seen:
                found[at] = COPY
            seen.add(raw)
        window.append(rows)
        yield block["uid"], found


def redundancy(rows: Matrix, before: Iterable[Matrix]) -> Floats:
    """The largest cosine of each row with an earlier one, of `rows` or of the blocks `before`;
    FIRST for a row that has none.
    """
    own = rows @ rows.T
    own[np.triu_indices(len(rows))] = FIRST
    found: Floats = own.max(axis=1)
    for earlier in before:
        np.maximum(found, (rows @ earlier.T).max(axis=1), out=found)
    return found
