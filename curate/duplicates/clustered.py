"""Clustered: the pool's clusters cut into buckets, and the edges of one bucket.

A bucket is a range of clusters; it reads them, and the neighbours that theirs are compared with,
and holds nothing else. A pair of neighbouring clusters belongs to the bucket of the one that names
the other; where both do, of the lower one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.duplicates.inverted import STAR, Indices, Inverted, Records
from curate.duplicates.near import (
    Floats,
    Hits,
    Reach,
    Rows,
    Stars,
    distances,
    screen,
    settle,
    within,
)
from curate.duplicates.ranked import removed
from models.kmeans import BLOCK, Matrix
from schemas.configs import SemanticDuplicates

BUCKET_BYTES = 512 << 20  # most of float16 embeddings in one bucket, unless one cluster has more
SMALLEST_BYTES = 16 << 20  # a small pool is some buckets of so many, for the workers
BUCKETS = 32  # that a pool between the two makes


class Some(NamedTuple):
    """Edges of one kind: uid[k] to other[k]."""

    uid: Records
    other: Records
    distance: Floats
    member: bool


@dataclass(frozen=True)
class Work:
    """What every bucket needs. bounds: its clusters are bounds[b] to bounds[b + 1]; partners
    (clusters, n): those that each is compared with beside itself, -1 for none; stars: of earlier
    searches.
    """

    config: SemanticDuplicates
    fresh: frozenset[int] | None
    pairs: Inverted
    stars: Inverted | None
    partners: Indices
    bounds: tuple[int, ...]


def plan(sizes: Indices, partners: Indices, dims: int) -> tuple[int, ...]:
    """Where buckets of neighbouring clusters begin, and where the last one ends: each has at most
    so many rows to hold, its clusters' partners included, or is one cluster.
    """
    size = 2 * dims
    total = int(sizes.sum()) * size
    most = min(max(total // BUCKETS, SMALLEST_BYTES), BUCKET_BYTES) // size
    bounds, held, rows = [0], set[int](), 0
    for cluster in range(len(sizes)):
        needs = {cluster, *partners[cluster][partners[cluster] >= 0].tolist()}
        more = sum(int(sizes[c]) for c in needs - held)
        if rows + more > most and cluster > bounds[-1]:
            bounds.append(cluster)
            held, rows = set(), 0
            more = sum(int(sizes[c]) for c in needs)
        held |= needs
        rows += more
    return (*bounds, len(sizes))


def partners_of(centroids: Matrix, neighbours: int) -> Indices:
    """(clusters, neighbours): the nearest other clusters of each, -1 where the other one, lower,
    names it too; so each pair of clusters is there once.
    """
    count = len(centroids)
    near = min(neighbours, count - 1)
    found = np.zeros((count, near), dtype=np.int64)
    if near == 0:
        return found
    for at in range(0, count, BLOCK):
        cosine = centroids[at : at + BLOCK] @ centroids.T
        own = np.arange(len(cosine))
        cosine[own, at + own] = -np.inf
        found[at : at + BLOCK] = np.argpartition(-cosine, near - 1, axis=1)[:, :near]
    own = np.arange(count)[:, None]
    named = (own * count + found).ravel()
    both = np.isin(found * count + own, named)
    found[both & (found < own)] = -1
    return np.sort(found, axis=1)


def edges(work: Work, number: int) -> pa.Table:
    """The edges of one bucket, sorted by the two uids."""
    bucket = _Bucket(work, *work.bounds[number : number + 2])
    of = bucket.ranked if work.config.mode == "code" else bucket.grouped
    found = [edge for cluster in range(bucket.low, bucket.high) for edge in of(cluster)]
    return _table(found)


class _Bucket:
    """The rows that a bucket reads, cluster by cluster."""

    def __init__(self, work: Work, low: int, high: int) -> None:
        self.work, self.low, self.high = work, low, high
        self.reach = Reach(work.config.eps, work.config.block_rows)
        near = work.partners[low:high].ravel()
        ranges = _runs(sorted({*range(low, high), *near[near >= 0].tolist()}))
        self.records = work.pairs.read(ranges)
        self.members = np.empty(0, STAR) if work.stars is None else work.stars.read(ranges)
        self.fresh = np.ones(len(self.records), dtype=bool)
        if work.fresh is not None:
            self.fresh = np.isin(self.records["part"], sorted(work.fresh))
        self.news = {*self.records["cluster"][self.fresh].tolist()}  # clusters with fresh rows
        keys = [self.records["uid"], self.fresh, self.records["cluster"]]
        if work.config.mode == "code":
            keys.insert(1, -self.records["distance"])
        self.order = np.lexsort(keys)
        self.cluster = self.records["cluster"][self.order]
        self.stars: dict[int, Stars] = {}

    def rows(self, cluster: int) -> Rows:
        here = slice(*np.searchsorted(self.cluster, [cluster, cluster + 1]))
        at = self.order[here]
        return Rows(self.records[at], self.fresh[at])

    def ranked(self, cluster: int) -> Iterable[Some]:
        """Who goes by SemDeDup's code: each edge from the pair that removes."""
        if cluster not in self.news:
            return
        rows = self.rows(cluster)
        i, j, distance = removed(rows, self.reach.eps)
        yield Some(rows.uids[i], rows.uids[j], distance, False)

    def grouped(self, cluster: int) -> Iterable[Some]:
        """Stars and near nodes of a cluster, then those near it in its partners."""
        near = [p for p in self.work.partners[cluster].tolist() if p >= 0]
        near = [p for p in near if cluster in self.news or p in self.news]
        if cluster not in self.news and not near:
            return
        rows = self.rows(cluster)
        stars, hits = self._settled(cluster, rows)
        member = np.flatnonzero(rows.fresh & ~stars.node)
        leader = stars.leader[member]
        distance = distances(rows, leader, rows, member)
        yield Some(rows.uids[leader], rows.uids[member], distance, True)
        yield from self._near(rows, stars, rows, stars, hits)
        for partner in near:
            others = self.rows(partner)
            theirs = self.stars.get(partner) or self._settled(partner, others)[0]
            across = self._across(rows, stars, others, theirs)
            yield from self._near(rows, stars, others, theirs, across)

    def _settled(self, cluster: int, rows: Rows) -> tuple[Stars, list[Hits]]:
        here = slice(*np.searchsorted(self.members["cluster"], [cluster, cluster + 1]))
        stars, hits = settle(rows, self.members[here], self.reach)
        self.stars[cluster] = stars
        return stars, hits

    def _across(self, rows: Rows, stars: Stars, others: Rows, theirs: Stars) -> Iterable[Hits]:
        """Hits between the nodes of two clusters, one of the two fresh."""
        if self.reach.eps == 0:
            return
        mine, all_theirs = np.flatnonzero(stars.node), np.flatnonzero(theirs.node)
        eps, block = self.reach.eps, self.reach.block
        yield from screen(rows, mine[rows.fresh[mine]], others, all_theirs, eps, block)
        fresh = all_theirs[others.fresh[all_theirs]]
        yield from screen(rows, mine[~rows.fresh[mine]], others, fresh, eps, block)

    def _near(
        self, rows: Rows, stars: Stars, others: Rows, theirs: Stars, hits: Iterable[Hits]
    ) -> Iterable[Some]:
        for some in hits:
            i, j, distance = within(rows, stars, others, theirs, some, self.reach)
            one, other = rows.uids[i], others.uids[j]
            lower = one < other
            low, high = np.where(lower, one, other), np.where(lower, other, one)
            yield Some(low, high, distance, False)


def _runs(clusters: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges that cover these numbers and no others."""
    cuts = [0, *(np.flatnonzero(np.diff(clusters) > 1) + 1).tolist(), len(clusters)]
    return [(clusters[a], clusters[b - 1] + 1) for a, b in pairwise(cuts)]


def _table(found: Sequence[Some]) -> pa.Table:
    distance = np.concatenate([np.empty(0), *(some.distance for some in found)])
    members = [np.full(len(some.uid), some.member) for some in found]
    member = np.concatenate([np.empty(0, dtype=bool), *members])
    columns = {
        "uid": _uids([some.uid for some in found]),
        "other_uid": _uids([some.other for some in found]),
        "distance": distance.astype(np.float32),
    }
    table = pa.table({**columns, "member": member})
    return table.sort_by([("uid", "ascending"), ("other_uid", "ascending")])


def _uids(found: Sequence[Records]) -> pa.Array:
    raw = b"".join(np.ascontiguousarray(some).tobytes() for some in found)
    kind = pa.binary(STAR["leader"].itemsize)
    count = len(raw) // kind.byte_width
    fixed = pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(raw)])
    return fixed.cast(pa.binary()).cast(pa.string())
