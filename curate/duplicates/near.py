"""Near: the pairs of one cluster whose cosines are high, stars around the crowded ones.

Cosines are screened in float32, a block at a time, and what passes is computed again from the
float16 embeddings in float64, each pair by itself: so no block, part or worker changes a result,
and equal embeddings are at distance 0 exactly.

- Equal embeddings are a star of their own around the first.
- Flood: a pair that has at least FLOOD others within a quarter of the threshold leads a star of
  them (the lowest uid first), so that m near copies are m edges. All members are within half of the
  threshold of each other.
- Two that stand for themselves share an edge within the threshold; a leader of a flood counts as a
  quarter nearer to it, so that each of its members is within the threshold too.

Angles are the metric: theta = 2 asin(sqrt(distance / 2)), distance = 1 - cosine.

What earlier searches compared is in their edges: no pair of theirs changes its star, and theirs
that stand for themselves lead no new flood; pairs that are fresh join the floods that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from curate.duplicates.inverted import Indices, Records
from models.kmeans import Matrix

FLOOD = 100
EXACT = 1 << 20  # numbers of embeddings that are multiplied in float64 at a time
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def angle(distance: Any) -> Any:
    """Of 1 - cosine, in radians."""
    return 2 * np.arcsin(np.sqrt(np.clip(distance, 0, 2) / 2))


@dataclass(frozen=True)
class Reach:
    """How near is near. eps: the largest distance; block: rows of one block of cosines."""

    eps: float
    block: int

    @property
    def theta(self) -> float:
        """The threshold as an angle."""
        return float(angle(self.eps))

    @property
    def quarter(self) -> float:
        """The distance at a quarter of it."""
        return float(2 * np.sin(self.theta / 8) ** 2)


class Rows:
    """The pairs of one cluster, those of earlier searches first; then by the order that is asked
    for.

    uids (n,); fresh (n,); old: how many are not; raw (n, d) float16; unit (n, d) float32.
    """

    def __init__(self, records: Records, fresh: Bools) -> None:
        self.uids, self.fresh = records["uid"], fresh
        self.old = int((~fresh).sum())
        self.raw = np.ascontiguousarray(records["row"]) + np.float16(0)  # there is one zero
        self.squares = np.empty(len(self.raw), dtype=np.float64)
        self.unit: Matrix = np.empty(self.raw.shape, dtype=np.float32)
        step = max(1, EXACT // max(1, self.raw.shape[1]))
        for at in range(0, len(self.raw), step):
            some = self.raw[at : at + step].astype(np.float64)
            self.squares[at : at + step] = (some * some).sum(axis=1)
            lengths = np.sqrt(self.squares[at : at + step])
            self.unit[at : at + step] = some / lengths[:, None]

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def margin(self) -> float:
        """By how much a float32 cosine may be off."""
        return float((self.raw.shape[1] + 64) * 2.0**-24)

    def first_alike(self) -> Indices:
        """The position of the first row with the same embedding, its own where it is the first."""
        seen: dict[bytes, int] = {}
        found = [seen.setdefault(row.tobytes(), at) for at, row in enumerate(self.raw)]
        return np.array(found, dtype=np.int64)


def distances(left: Rows, i: Indices, right: Rows, j: Indices) -> Floats:
    """1 - cosine of rows i[k] and j[k], from 0 on; the same bits in any company."""
    found = np.empty(len(i), dtype=np.float64)
    step = max(1, EXACT // max(1, left.raw.shape[1]))
    for at in range(0, len(i), step):
        one, other = i[at : at + step], j[at : at + step]
        product = left.raw[one].astype(np.float64) * right.raw[other].astype(np.float64)
        length = np.sqrt(left.squares[one] * right.squares[other])
        found[at : at + step] = 1 - product.sum(axis=1) / length
    return np.maximum(found, 0.0, out=found)


class Hits(NamedTuple):
    """Positions whose float32 cosine is high enough to look again."""

    i: Indices
    j: Indices
    cosine: Matrix


def screen(
    left: Rows, some: Indices, right: Rows, others: Indices, distance: float, block: int
) -> Iterator[Hits]:
    """Pairs of left's rows `some` and right's `others` that may be within a distance; within one
    cluster (left is right) those where the second comes before the first.
    """
    floor = 1 - distance - left.margin
    for a in range(0, len(some), block):
        ones = some[a : a + block]
        rows = left.unit[ones]
        for b in range(0, len(others), block):
            against = others[b : b + block]
            if left is right and against[0] > ones[-1]:
                break
            cosine = rows @ right.unit[against].T
            i, j = np.nonzero(cosine >= floor)
            hits = Hits(ones[i], against[j], cosine[i, j])
            if left is right:
                before = hits.j < hits.i
                hits = Hits(hits.i[before], hits.j[before], hits.cosine[before])
            yield hits


# ------------------------------------------------------------------------------------ stars


@dataclass(frozen=True)
class Stars:
    """Who stands for each row of a cluster. leader (n,): its position, the row's own where it is a
    node; radius (n,): of the star that it leads, an angle.
    """

    leader: Indices
    radius: Floats

    @property
    def node(self) -> Bools:
        """Whether a row stands for itself."""
        return np.equal(self.leader, np.arange(len(self.leader)))


def earlier(rows: Rows, members: Records, reach: Reach) -> Stars:
    """The stars that earlier searches have found, and those of equal embeddings."""
    leader, radius = np.arange(len(rows)), np.zeros(len(rows))
    one, other = (_places(rows.uids[: rows.old], members[e]) for e in ("leader", "member"))
    there = (one >= 0) & (other >= 0)
    leader[other[there]] = one[there]
    radius[one[there & (members["distance"] > 0)]] = reach.theta / 4
    first = rows.first_alike()
    copies = np.flatnonzero(rows.fresh & (first != np.arange(len(rows))))
    leader[copies] = leader[first[copies]]
    return Stars(leader, radius)


def _places(known: Any, wanted: Any) -> Indices:
    """The position of each uid among sorted ones, -1 where it is not there."""
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def settle(rows: Rows, members: Records, reach: Reach) -> tuple[Stars, list[Hits]]:
    """The stars of a cluster, and the hits among their nodes that have a fresh end.

    Rows are by uid. In one pass over the cosines, unless there is a flood: then it is taken out
    first, so that its pairs are never held.
    """
    stars = earlier(rows, members, reach)
    if reach.eps == 0:
        return stars, []
    crowd = np.zeros(len(rows), dtype=np.int64)  # at least as many as are within a quarter
    hits: list[Hits] = []
    for some in _among(rows, stars, reach):
        near = some.cosine >= 1 - reach.quarter - rows.margin
        for end in (some.i, some.j):
            crowd += np.bincount(end[near], minlength=len(rows))
        if _crowded(rows, stars, crowd).any():
            hits.clear()
        else:
            hits.append(some)
    if not _crowded(rows, stars, crowd).any():
        return stars, hits
    stars = _gather(rows, stars, crowd, reach)
    return stars, list(_among(rows, stars, reach))


def _among(rows: Rows, stars: Stars, reach: Reach) -> Iterator[Hits]:
    nodes = np.flatnonzero(stars.node)
    return screen(rows, nodes[rows.fresh[nodes]], rows, nodes, reach.eps, reach.block)


def _crowded(rows: Rows, stars: Stars, crowd: Indices) -> Bools:
    """Who may lead a flood: a fresh row with others enough, a leader of one with anyone near."""
    found: Bools = np.where(rows.fresh, crowd >= FLOOD, (crowd > 0) & (stars.radius > 0))
    return found


def _gather(rows: Rows, stars: Stars, crowd: Indices, reach: Reach) -> Stars:
    """The stars with those of the floods: who is free joins the first leader that is near."""
    leader, radius, free = stars.leader.copy(), stars.radius.copy(), stars.node
    floor = 1 - reach.quarter - rows.margin
    for one in np.flatnonzero(_crowded(rows, stars, crowd)):
        if not free[one]:
            continue
        near = np.flatnonzero(free & (rows.unit @ rows.unit[one] >= floor))
        near = near[near != one]
        near = near[distances(rows, near, rows, np.full_like(near, one)) <= reach.quarter]
        joins = near[rows.fresh[near]]
        if len(joins) and (len(near) >= FLOOD or not rows.fresh[one]):
            leader[joins] = one
            radius[one] = reach.theta / 4
            free[joins] = free[one] = False
    return Stars(leader[leader], radius)


def within(
    left: Rows, one: Stars, right: Rows, other: Stars, hits: Hits, reach: Reach
) -> tuple[Indices, Indices, Floats]:
    """Of hits between nodes: those for which all members of both stars are within the threshold."""
    distance = distances(left, hits.i, right, hits.j)
    spread = one.radius[hits.i] + other.radius[hits.j]
    near = (distance <= reach.eps) & ((spread == 0) | (angle(distance) + spread <= reach.theta))
    return hits.i[near], hits.j[near], distance[near]
