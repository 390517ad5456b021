"""Near copies: perceptual hashes within a Hamming radius and thumbnails that hardly differ.

1. Rows with equal hashes and thumbnails within `max_rms` of a leader form its star (leaders.py). A
   hash with too few ones or zeros (a blank image) says nothing and takes no part.
2. All hashes within the radius are found (hamming.py), and those of their leaders whose thumbnails
   are within `max_rms` too share an edge. So among leaders, every pair within both is found.

An edge of distance 0 promises an equal hash and a thumbnail within `max_rms` of the leader's (the
lower uid); two members of one star, or of two joined ones, may be further apart, each by at most
`max_rms` from its leader. Only rows whose hash occurs again, or has another one near, need their
thumbnails. Without `max_rms` the hash decides alone, and each hash has one leader.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.duplicates.hamming import Hashes, Indices, View, mask_of, pairs_in_view, plan
from curate.duplicates.leaders import Rows
from curate.duplicates.search import Search, buckets_for, slice_sql, stars
from schemas.configs import PerceptualDuplicates

if TYPE_CHECKING:
    import duckdb

_HASHED = """
SELECT uid, phash AS key, thumbnail FROM samples
WHERE status = 'success' AND least(bit_count(phash), 64 - bit_count(phash)) >= {bits}
"""
_REPEATED = "SELECT key FROM ({rows}) WHERE {here} GROUP BY key HAVING count(*) > 1"
_ROWS = """
SELECT uid, key, thumbnail FROM ({rows}) SEMI JOIN ({wanted}) USING (key) ORDER BY key, uid
"""
_LOWEST = """
SELECT min(uid) AS uid, key, CAST(NULL AS BLOB) AS thumbnail
FROM ({rows}) SEMI JOIN ({wanted}) USING (key) GROUP BY key ORDER BY key
"""


def find(data: Dataset, config: PerceptualDuplicates) -> Search:
    """Search for downloaded pairs whose `phash` differ in at most `config.radius` bits, their
    distance, and whose thumbnails differ by at most `config.max_rms`.
    """
    slices = buckets_for(data)
    blocks, views = plan(data.rows("samples"), config.radius)
    work = partial(_bucket, data, config, slices, blocks, views)
    return Search(("samples",), "phash", slices * (1 + len(views)), work)


def _bucket(
    data: Dataset,
    config: PerceptualDuplicates,
    slices: int,
    blocks: list[int],
    views: list[View],
    number: int,
) -> pa.Table:
    """Buckets: the slices of the stars, then the slices of each view."""
    from curate.query import connect

    view, part = divmod(number, slices)
    rows = _HASHED.format(bits=config.min_distinct_bits)
    if view == 0 and config.max_rms is None:
        return stars(data, rows, part, slices)
    con = connect(data)
    try:
        if view == 0:
            return _stars(con, rows, slice_sql("key", part, slices), config.max_rms or 0.0)
        blocks_of_view = views[view - 1]
        masked = f"key & {mask_of(blocks, blocks_of_view)}::UBIGINT"
        hashes = _distinct_hashes(con, rows, slice_sql(masked, part, slices))
        left, right = pairs_in_view(hashes, config.radius, blocks, blocks_of_view)
        return _edges(con, rows, hashes[left], hashes[right], config.max_rms)
    finally:
        con.close()


def _stars(con: duckdb.DuckDBPyConnection, rows: str, here: str, max_rms: float) -> pa.Table:
    """Edges of distance 0 from the leaders of one slice to the others of their stars."""
    found = _rows(con, rows, _REPEATED.format(rows=rows, here=here), max_rms)
    leader = found.leaders(max_rms)
    member = np.flatnonzero(leader != np.arange(len(leader)))
    return _table(found, leader[member], member)


def _edges(
    con: duckdb.DuckDBPyConnection, rows: str, left: Hashes, right: Hashes, max_rms: float | None
) -> pa.Table:
    """Edges between the leaders of hashes left[k] and those of right[k]."""
    con.register("wanted", pa.table({"key": np.unique(np.concatenate([left, right]))}))
    found = _rows(con, rows, "SELECT key FROM wanted", max_rms)
    if max_rms is not None:
        found = found.take(np.unique(found.leaders(max_rms)))
    near = []
    for one, other in found.pairs(left, right):
        alike = slice(None) if max_rms is None else found.alike(one, other, max_rms)
        near.append((one[alike], other[alike]))
    ones, others = (np.concatenate(ends) for ends in zip(*near, strict=True))
    return _table(found, ones, others)


def _distinct_hashes(con: duckdb.DuckDBPyConnection, rows: str, here: str) -> Hashes:
    from curate.query import select

    found: Hashes
    found = select(con, f"SELECT DISTINCT key FROM ({rows}) WHERE {here}")["key"].to_numpy()
    return np.sort(found)


def _rows(con: duckdb.DuckDBPyConnection, rows: str, wanted: str, max_rms: float | None) -> Rows:
    """The rows of the wanted hashes (SQL); without `max_rms` the lowest uid of each."""
    from curate.query import select

    sql = _LOWEST if max_rms is None else _ROWS
    return Rows.of(select(con, sql.format(rows=rows, wanted=wanted)))


def _table(rows: Rows, ones: Indices, others: Indices) -> pa.Table:
    """The edges between these positions: the lower uid first, sorted."""
    by_uid = pc.sort_indices(rows.uids).to_numpy()
    rank = np.empty_like(by_uid)
    rank[by_uid] = np.arange(len(by_uid), dtype=by_uid.dtype)
    low, high = np.minimum(rank[ones], rank[others]), np.maximum(rank[ones], rank[others])
    order = np.lexsort((high, low))
    distance = np.bitwise_count(rows.hashes[ones] ^ rows.hashes[others])[order]
    ends = {
        "uid": rows.uids.take(pa.array(by_uid[low[order]])),
        "other_uid": rows.uids.take(pa.array(by_uid[high[order]])),
    }
    return pa.table({**ends, "distance": distance.astype(np.float32)})
