"""Copies by brute force, and what the edges of a finder promise: for the tests of finders that
compare hashes and looks.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from curate.duplicates import finder
from curate.duplicates.search import Scope
from schemas.configs import BlankDuplicates, PerceptualDuplicates
from tests.tiny import Placement, Row, add_table, samples_of, tiny_dataset

Pairs = set[frozenset[str]]
CopiesConfig = PerceptualDuplicates | BlankDuplicates


@dataclass(frozen=True)
class Edge:
    """A row of duplicates_*."""

    uid: str
    other_uid: str
    distance: float
    member: bool


def colour(*levels: int) -> bytes:
    """A thumbnail of 8 x 8 pixels of one colour: two of them differ by the rms of their levels."""
    return bytes((levels * 3)[:3] * 64)


def rms(a: bytes, b: bytes) -> float:
    return float(
        np.sqrt(np.mean((np.frombuffer(a, np.uint8) * 1.0 - np.frombuffer(b, np.uint8)) ** 2))
    )


def are_near(a: Row, b: Row, config: CopiesConfig) -> bool:
    """The rule word by word."""
    by = config.by if isinstance(config, PerceptualDuplicates) else "phash"
    one, other = getattr(a, by), getattr(b, by)
    if one is None or other is None:
        return False
    blank = [
        min(x.bit_count(), 64 - x.bit_count()) < config.min_distinct_bits for x in (one, other)
    ]
    if isinstance(config, BlankDuplicates):
        near, check = all(blank) and one == other, None
    else:
        near, check = (
            not any(blank) and (one ^ other).bit_count() <= config.radius,
            config.check_radius,
        )
    if check is not None:
        one, other = (row.dhash if by == "phash" else row.phash for row in (a, b))
        near &= one is not None and other is not None and (one ^ other).bit_count() <= check
    if config.max_rms is not None:
        whole = [row.thumbnail is not None and len(row.thumbnail) == 192 for row in (a, b)]
        near = near and all(whole) and rms(a.thumbnail or b"", b.thumbnail or b"") <= config.max_rms
    return near and a.status == b.status == "success"


def by_hand(rows: Iterable[Row], config: CopiesConfig) -> Pairs:
    """All pairs that are near."""
    near = ((a, b) for a, b in combinations(rows, 2) if are_near(a, b, config))
    return {frozenset((a.uid, b.uid)) for a, b in near}


def edges_of(data: Dataset, config: CopiesConfig, fresh: Iterable[int] | None = None) -> list[Edge]:
    """A search's edges, each in one bucket, which are sorted."""
    scope = Scope(data, None if fresh is None else frozenset(fresh))
    search = finder(config).find(scope, config)
    found: list[Edge] = []
    for bucket in range(search.buckets):
        edges = [Edge(**row) for row in search.edges(bucket).to_pylist()]
        assert edges == sorted(edges, key=lambda e: (e.uid, e.other_uid))
        found += edges
    assert len(found) == len({(e.uid, e.other_uid) for e in found})
    assert all(e.member or e.uid < e.other_uid for e in found)
    return found


def found_in(rows: Sequence[Row], config: CopiesConfig, parts: int | Placement = 3) -> list[Edge]:
    return edges_of(tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, parts), config)


def found_by_batches(batches: Sequence[Sequence[Row]], config: CopiesConfig) -> list[Edge]:
    """The edges of one search after each batch, over what is fresh."""
    data = Dataset(f"memory://{uuid.uuid4().hex}")
    found: list[Edge] = []
    for part, rows in enumerate(batches):
        add_table(data, "samples", {part: samples_of(sorted(rows, key=lambda r: r.uid))}, ())
        edges = edges_of(data, config, {part})
        seen = {row.uid for row in rows}
        assert all({e.uid, e.other_uid} & seen for e in edges)
        values: list[dict[str, Any]] = [vars(e) | {"method": "phash"} for e in edges]
        if values:
            table = pa.Table.from_pylist(values)
            add_table(data, f"duplicates_{config.name}", {part: table}, ())
        found += edges
    return found


def stars_of(edges: Iterable[Edge]) -> dict[str, set[str]]:
    """Each leader's star, itself included; nobody is in two of them."""
    stars: dict[str, set[str]] = defaultdict(set)
    members = [e.other_uid for e in edges if e.member]
    for e in edges:
        if e.member:
            stars[e.uid] |= {e.uid, e.other_uid}
    assert len(members) == len(set(members))
    assert not stars.keys() & set(members)
    return stars


def promised(edges: Sequence[Edge]) -> Pairs:
    """All pairs that the edges say are near."""
    stars = stars_of(edges)
    inside = {uid for leader, star in stars.items() for uid in star if uid != leader}
    pairs: Pairs = {frozenset(p) for star in stars.values() for p in combinations(star, 2)}
    for e in (e for e in edges if not e.member):
        assert not {e.uid, e.other_uid} & inside
        ends = (stars.get(uid, {uid}) for uid in (e.uid, e.other_uid))
        pairs |= {frozenset(p) for p in product(*ends)}
    return pairs
