"""Copies: the search that the perceptual and the blank finder share, over a hash and a look.

1. Buckets of stars, by slices of the hashes: rows of one hash and look, or of a flood (leaders.py),
   and the pairs of leaders of one hash.
2. Buckets of views (hamming.py): each takes some views, finds the hashes within the radius, and
   compares the looks of their leaders.

A bucket holds the hashes of at most HASHES rows (8 bytes each), and the rows of the hashes that
occur again, or are near another one, some 300 bytes each: of a slice of stars, or of HELD pairs of
hashes at a time. Only where an edge may be are thumbnails read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.duplicates.hamming import (
    Hashes,
    HashPairs,
    Indices,
    Plan,
    View,
    mask_of,
    pairs_in_view,
    plan,
)
from curate.duplicates.leaders import Limits, Rows, near_pairs, stars
from curate.duplicates.search import Scope, Search, buckets_for, slice_sql

if TYPE_CHECKING:
    import duckdb

HASHES = 32_000_000  # of one bucket of views
HELD = 1 << 20  # pairs of hashes whose rows are compared at a time
BUCKET_S = 20.0  # about what the views of one bucket cost

_PICTURES = """
SELECT uid, {hash} AS key, {look} AS look, {thumbnail} AS thumbnail, {fresh} AS fresh
FROM ({samples}) samples WHERE status = 'success' AND {where}
"""
_HASHES = "SELECT key, bool_or(fresh) AS fresh FROM ({pictures}) WHERE {here} GROUP BY key"
_AGAIN = """
SELECT key FROM ({pictures}) WHERE {here} GROUP BY key HAVING count(*) > 1 AND bool_or(fresh)
"""
_ROWS = """
WITH pictures AS (SELECT * FROM ({pictures}) SEMI JOIN wanted USING (key) WHERE {whole}),
     members AS ({members}),
     wide AS (SELECT DISTINCT m.leader AS uid FROM members m
              JOIN pictures a ON a.uid = m.leader JOIN pictures b ON b.uid = m.uid
              WHERE a.look IS DISTINCT FROM b.look OR a.thumbnail IS DISTINCT FROM b.thumbnail)
SELECT uid, key, look, thumbnail, fresh, uid IN (SELECT uid FROM wide) AS wide
FROM pictures ANTI JOIN members USING (uid) ORDER BY key, uid
"""
_NO_MEMBERS = "SELECT uid, uid AS leader FROM pictures WHERE false"


@dataclass(frozen=True)
class Copies:
    """What is searched: hashes within `radius`, looks within the limits.

    table: with the edges of earlier searches. hash: its column; check: that of the second hash.
    where: SQL over a row of `samples`.
    """

    table: str
    hash: Literal["phash", "dhash"]
    where: str
    radius: int
    max_rms: float | None
    check_radius: int | None = None

    @property
    def check(self) -> str:
        return "dhash" if self.hash == "phash" else "phash"

    @property
    def limits(self) -> Limits:
        return Limits.of(self.max_rms, self.check_radius)


def search(scope: Scope, copies: Copies, method: str) -> Search:
    """Search for the pairs with a fresh end that are copies; distance is that of the hashes."""
    data, rows = scope.data, scope.data.rows("samples")
    parts = data.parts("samples")
    fresh = None if scope.fresh is None else sum(parts[p].rows for p in scope.fresh & parts.keys())
    slices = buckets_for(data)
    how = plan(rows, copies.radius, fresh)
    each = max(1, int(BUCKET_S / how.view_s)) if how.views else 1
    of = max(1, -(-rows // HASHES))
    groups = [how.views[begin : begin + each] for begin in range(0, len(how.views), each)]
    work = partial(_bucket, scope, copies, slices, how._replace(views=[]), groups, of)
    return Search(method, slices + len(groups) * of, work)


def _bucket(
    scope: Scope,
    copies: Copies,
    slices: int,
    how: Plan,
    groups: list[list[View]],
    of: int,
    number: int,
) -> pa.Table:
    """Buckets: the slices of the stars, then the slices of each group of views."""
    from curate.query import connect

    earlier = scope.fresh is not None and copies.table in _published(scope)
    con = connect(scope.data, only=[copies.table] if earlier else [])
    pictures = Pictures(con, scope, copies, earlier)
    try:
        if number < slices:
            return _table(_stars(pictures, slice_sql("key", number, slices)))
        group, part = divmod(number - slices, of)
        pairs = _hash_pairs(pictures, how.blocks, groups[group], part, of)
        return _table(_between(pictures, pairs))
    finally:
        con.close()


def _published(scope: Scope) -> list[str]:
    from curate.query import views

    return views(scope.data)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a scope as DuckDB sees them. earlier: `copies.table` is a view."""

    con: duckdb.DuckDBPyConnection
    scope: Scope
    copies: Copies
    earlier: bool

    @property
    def sql(self) -> str:
        from curate.query import with_part_sql

        copies = self.copies
        return _PICTURES.format(
            hash=copies.hash,
            look="CAST(NULL AS UBIGINT)" if copies.check_radius is None else copies.check,
            thumbnail="CAST(NULL AS BLOB)" if copies.max_rms is None else "thumbnail",
            fresh=self.scope.fresh_sql,
            samples=with_part_sql(self.scope.data, "samples"),
            where=copies.where,
        )

    def hashes(self, here: str) -> tuple[Hashes, Hashes]:
        """The distinct hashes that fresh rows have, and those that no fresh row has, sorted."""
        from curate.query import select

        found = select(self.con, _HASHES.format(pictures=self.sql, here=here))
        keys, fresh = found["key"].to_numpy(), found["fresh"].to_numpy()
        return np.sort(keys[fresh]), np.sort(keys[~fresh])

    def again(self, here: str) -> Hashes:
        """The hashes that more than one row has, one of them fresh."""
        from curate.query import select

        found: Hashes
        found = select(self.con, _AGAIN.format(pictures=self.sql, here=here))["key"].to_numpy()
        return np.sort(found)

    def rows(self, hashes: Hashes) -> Rows:
        """The rows of these hashes, but for members of earlier stars: their leaders are here."""
        from curate.query import quote, select

        whole = []
        if self.copies.max_rms is not None:
            whole.append("octet_length(thumbnail) = 192")
        if self.copies.check_radius is not None:
            whole.append("look IS NOT NULL")
        members = _NO_MEMBERS
        if self.earlier:
            members = f"SELECT other_uid AS uid, uid AS leader FROM {quote(self.copies.table)}"
            members += " WHERE member"
        sql = _ROWS.format(pictures=self.sql, whole=" AND ".join(whole) or "true", members=members)
        self.con.register("wanted", pa.table({"key": hashes}))
        try:
            return Rows.of(select(self.con, sql))
        finally:
            self.con.unregister("wanted")


@dataclass(frozen=True)
class Edges:
    """Edges between rows: left[k] leads right[k] (member), or the two are near."""

    rows: Rows
    left: Indices
    right: Indices
    member: bool


def _stars(pictures: Pictures, here: str) -> Iterator[Edges]:
    """The stars of one slice, and the pairs of their leaders that have one hash."""
    limits = pictures.copies.limits
    rows = pictures.rows(pictures.again(here))
    leader, wide = stars(rows, limits)
    leads = leader == np.arange(len(leader))
    members = np.flatnonzero(~leads & rows.fresh)
    yield Edges(rows, leader[members], members, True)
    leaders = rows.take(np.flatnonzero(leads), wide)
    hashes, counts = np.unique(leaders.hashes, return_counts=True)
    again = hashes[counts > 1]
    for left, right in near_pairs(leaders, again, again, limits):
        yield Edges(leaders, left, right, False)


def _hash_pairs(
    pictures: Pictures, blocks: list[int], group: list[View], part: int, of: int
) -> Iterator[HashPairs]:
    """What these views report, HELD pairs or so at a time."""
    held: list[HashPairs] = []
    count, hashes = 0, None
    for view in group:
        if hashes is None or of > 1:  # whole, they are the same for all views
            masked = f"key & {mask_of(blocks, view)}::UBIGINT"
            hashes = pictures.hashes(slice_sql(masked, part, of))
        for found in pairs_in_view(*hashes, pictures.copies.radius, blocks, view):
            held.append(found)
            count += len(found[0])
            if count >= HELD:
                yield _joined(held)
                count, held = 0, []
    if held:
        yield _joined(held)


def _joined(held: list[HashPairs]) -> HashPairs:
    left, right = zip(*held, strict=True)
    return np.concatenate(left), np.concatenate(right)


def _between(pictures: Pictures, pairs: Iterator[HashPairs]) -> Iterator[Edges]:
    """The near leaders of the hashes of each pair."""
    limits = pictures.copies.limits
    for left, right in pairs:
        rows = pictures.rows(np.unique(np.concatenate([left, right])))
        leader, wide = stars(rows, limits)
        leaders = rows.take(np.flatnonzero(leader == np.arange(len(leader))), wide)
        present = np.isin(left, leaders.hashes) & np.isin(right, leaders.hashes)
        for ones, others in near_pairs(leaders, left[present], right[present], limits):
            yield Edges(leaders, ones, others, False)


def _table(found: Iterator[Edges]) -> pa.Table:
    """The edges, those that are no member's with the lower uid first, sorted."""
    tables = [_NOTHING]
    for edges in found:
        rows = edges.rows
        one, other = (rows.uids.take(pa.array(at)) for at in (edges.left, edges.right))
        if not edges.member:
            turned = pc.greater(one, other)
            one, other = pc.if_else(turned, other, one), pc.if_else(turned, one, other)
        distance = np.bitwise_count(rows.hashes[edges.left] ^ rows.hashes[edges.right])
        member = np.full(len(distance), edges.member)
        columns = [one, other, pa.array(distance.astype(np.float32)), pa.array(member)]
        tables.append(pa.table(columns, schema=_NOTHING.schema))
    return pa.concat_tables(tables).sort_by([("uid", "ascending"), ("other_uid", "ascending")])


_NOTHING = pa.table(
    {
        "uid": pa.array([], pa.string()),
        "other_uid": pa.array([], pa.string()),
        "distance": pa.array([], pa.float32()),
        "member": pa.array([], pa.bool_()),
    }
)
