"""The semantic finder: all near pairs of a cluster, or those that SemDeDup's code removes."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.dataset import Dataset
from curate.duplicates import clustered, inverted, near
from curate.duplicates.search import Scope
from curate.duplicates.semantic import find, tables
from schemas.configs import SemanticDuplicates
from tests.tiny import Row, add_table, by_url, samples_of, tiny_dataset, urls_of

Vectors = np.ndarray[Any, np.dtype[np.float16]]
Pool = list[tuple[Row, Any]]  # a pair and its embedding, None for none
CODES = "codes_duplicates_semantic"
TABLE = "duplicates_semantic"


def vectors(count: int, copies: int, dims: int = 16, seed: int = 0) -> Vectors:
    """Random directions; the last `copies` are copies of earlier rows (copies of copies included),
    some the same bits, some off by up to a cosine of about 0.8.
    """
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dims))
    for at in range(count - copies, count):
        noise = rng.choice([0, 0.05, 0.1, 0.2, 0.4])
        rows[at] = rows[rng.integers(0, at)] + noise * rows[at]
    return rows.astype(np.float16)


def distinct(rows: Vectors) -> Vectors:
    """Without equal directions."""
    _, first = np.unique(np.round(unit(rows), 9), axis=0, return_index=True)
    return rows[np.sort(first)]


def pool_of(rows: Iterable[Any], name: str = "u") -> Pool:
    return [(Row(f"{name}{at}"), row) for at, row in enumerate(rows)]


def scores_of(pool: Pool, dims: int) -> pa.Table:
    uids = [row.uid for row, _ in pool]
    values = pa.array(
        [None if v is None else list(v) for _, v in pool], pa.list_(pa.float16(), dims)
    )
    return pa.table({"uid": uids, "caption_id": uids, "image_emb": values})


def add_parts(data: Dataset, placed: Mapping[int, Pool]) -> Dataset:
    """Publish these parts of urls, samples and scores_bootstrap."""
    dims = next(len(v) for pool in placed.values() for _, v in pool if v is not None)
    parts = {p: sorted(pool, key=lambda pair: pair[0].uid) for p, pool in placed.items()}
    add_table(data, "urls", {p: urls_of([r for r, _ in pool]) for p, pool in parts.items()}, ())
    samples = {p: samples_of([r for r, _ in pool]) for p, pool in parts.items()}
    add_table(data, "samples", samples, ("urls",))
    scores = {p: scores_of(pool, dims) for p, pool in parts.items()}
    add_table(data, "scores_bootstrap", scores, ("urls", "samples"))
    return data


def made(pool: Pool, parts: int = 3, salt: int = 0, root: Any = None) -> Dataset:
    where, placed = by_url(parts, salt), dict[int, Pool]()
    for pair in pool:
        placed.setdefault(where(pair[0].uid), []).append(pair)
    return add_parts(Dataset(str(root or f"memory://{uuid.uuid4().hex}")), placed)


def edges(
    data: Dataset, config: SemanticDuplicates, fresh: Iterable[int] | None = None, workers: int = 0
) -> list[dict[str, Any]]:
    """All edges, by their ends; each of them once, each bucket in order."""
    scope = Scope(data, None if fresh is None else frozenset(fresh), workers)
    search = find(scope, config)
    found: list[dict[str, Any]] = []
    for bucket in range(search.buckets):
        some = search.edges(bucket).to_pylist()
        assert some == sorted(some, key=lambda e: (e["uid"], e["other_uid"]))
        found += some
    ends = [frozenset((e["uid"], e["other_uid"])) for e in found]
    assert len(set(ends)) == len(ends)
    return sorted(found, key=lambda e: (e["uid"], e["other_uid"]))


def publish(data: Dataset, found: Sequence[Mapping[str, Any]]) -> None:
    """Add edges to the published ones, as dedup does."""
    number = len(data.parts(TABLE)) if TABLE in data.tables() else 0
    rows = pa.Table.from_pylist([dict(e, method="semantic group") for e in found])
    schema = pa.schema(
        {
            "uid": pa.string(),
            "other_uid": pa.string(),
            "distance": pa.float32(),
            "member": pa.bool_(),
            "method": pa.string(),
        }
    )
    rows = rows.cast(schema) if len(rows) else schema.empty_table()
    add_table(data, TABLE, {number: rows}, ())


# ------------------------------------------------------------------------------- by hand


def unit(rows: Any) -> Any:
    rows = np.asarray(rows, dtype=np.float16).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters_by_hand(data: Dataset, pool: Pool) -> list[tuple[list[str], Any, Any]]:
    """Of each cluster: uids in order, unit rows, cosine distance from the centroid."""
    path = f"{data.path}/_artifacts/{CODES}/{data.artifact_in_use(CODES)}/centroids.npy"
    centroids = np.load(io.BytesIO(data.fs.cat_file(path)))
    pool = sorted(pool, key=lambda pair: pair[0].uid)
    rows = unit([v for _, v in pool])
    of, far = (rows @ centroids.T).argmax(axis=1), 1 - (rows @ centroids.T).max(axis=1)
    return [
        ([pool[i][0].uid for i in at], rows[at], far[at].astype(np.float32))
        for at in (np.flatnonzero(of == c) for c in range(len(centroids)))
    ]


def groups_by_hand(data: Dataset, pool: Pool, eps: float) -> set[tuple[str, str, bool]]:
    """Compare all: equal rows join the first one, and the first ones share an edge within eps."""
    found: set[tuple[str, str, bool]] = set()
    for uids, rows, _ in clusters_by_hand(data, pool):
        first = [
            next(i for i in range(j + 1) if (rows[i] == rows[j]).all()) for j in range(len(rows))
        ]
        found |= {(uids[i], uids[j], True) for j, i in enumerate(first) if i < j}
        close = np.triu(rows @ rows.T, 1) >= 1 - eps
        alone = {j for j, i in enumerate(first) if i == j}
        pairs = zip(*np.nonzero(close), strict=True)
        found |= {(uids[i], uids[j], False) for i, j in pairs if {i, j} <= alone}
    return found


def removed_by_hand(data: Dataset, pool: Pool, eps: float) -> set[tuple[str, str]]:
    """SemDeDup's code: M = max of each column of triu(S, 1), out where M > 1 - eps."""
    found: set[tuple[str, str]] = set()
    for uids, rows, far in clusters_by_hand(data, pool):
        if not uids:
            continue
        order = sorted(range(len(uids)), key=lambda i: (-far[i], uids[i]))
        upper = np.triu(np.round(rows[order] @ rows[order].T, 10), 1)
        nearest = upper.argmax(axis=0)
        gone = np.flatnonzero(upper.max(axis=0) > 1 - eps)
        found |= {(uids[order[nearest[j]]], uids[order[j]]) for j in gone}
    return found


POOL = pool_of(vectors(5000, 2000))


@pytest.mark.parametrize("eps", [0.003, 0.02, 0.1])
def test_group_is_comparing_all_of_a_cluster(eps):
    """The edges are those of a matrix of all cosines, with the right distances."""
    data = made(POOL)
    found = edges(data, SemanticDuplicates(eps=eps))
    by_hand = groups_by_hand(data, POOL, eps)
    assert {(e["uid"], e["other_uid"], e["member"]) for e in found} == by_hand
    assert len(by_hand) > 500
    row = dict(zip((r.uid for r, _ in POOL), unit([v for _, v in POOL]), strict=True))
    for edge in found:
        distance = 1 - row[edge["uid"]] @ row[edge["other_uid"]]
        assert edge["distance"] == pytest.approx(distance, abs=1e-7)


@pytest.mark.parametrize("eps", [0.003, 0.02, 0.1])
def test_code_is_the_released_code(eps):
    """The removed pairs, and who removes them, are those of the matrix that SemDeDup's code has."""
    data = made(POOL)
    found = edges(data, SemanticDuplicates(eps=eps, mode="code"))
    by_hand = removed_by_hand(data, POOL, eps)
    assert {(e["uid"], e["other_uid"]) for e in found} == by_hand
    assert len(by_hand) > 500
    assert len({e["other_uid"] for e in found}) == len(found)
    assert not any(e["member"] for e in found)
    assert max(e["distance"] for e in found) < eps


def test_a_chain_is_removed_whole_by_the_code_and_is_edges_of_a_group():
    """a - b - c, each near the next: code removes over a removed one, group joins neighbours."""
    turns = np.deg2rad([0, 10, 20, 30])
    pool = pool_of(np.stack([np.cos(turns), np.sin(turns)], axis=1))
    config = SemanticDuplicates(eps=0.02, clusters=1)
    assert len(edges(made(pool), config)) == 3
    assert len(edges(made(pool), config.model_copy(update={"mode": "code"}))) >= 2


@pytest.mark.parametrize("mode", ["group", "code"])
def test_nothing_depends_on_parts_order_blocks_or_buckets(mode, monkeypatch):
    """The edges have the same bits however the pool is cut."""
    config = SemanticDuplicates(eps=0.05, mode=mode)
    pool = POOL[:1000] + POOL[-500:]
    first = edges(made(pool), config)
    assert len(first) > 20
    assert first == edges(made(pool[::-1], parts=7, salt=5), config)
    for rows in (1, 17, 300):
        assert first == edges(made(pool), config.model_copy(update={"block_rows": rows}))
    monkeypatch.setattr(inverted, "GROUP_BYTES", 100 * 32)
    monkeypatch.setattr(inverted, "CHUNK", 13)
    monkeypatch.setattr(clustered, "SMALLEST_BYTES", 100 * 32)
    data = made(pool, parts=9)
    assert find(Scope(data), config).buckets > 5
    assert edges(data, config) == first


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    """Two Ray workers find what this process does."""
    config = SemanticDuplicates(eps=0.05)
    pool = POOL[-600:]
    here = edges(made(pool, root=tmp_path / "here"), config)
    assert here == edges(made(pool, root=tmp_path / "there"), config, workers=2)


@pytest.mark.parametrize("mode", ["group", "code"])
def test_eps_0_finds_equal_embeddings_only(mode):
    """A copy of the same bits is found, one that is off by the last bit of one number is not."""
    rows = vectors(50, 0)
    close = rows[:10].copy()
    close[:, 0] = np.nextafter(close[:, 0], np.float16(9))
    pool = pool_of([*rows, *rows[:20], *close])
    found = edges(made(pool), SemanticDuplicates(eps=0, mode=mode, clusters=3))
    names = {row.uid: int(row.url[1:]) for row, _ in pool}
    pairs = [sorted((names[e["uid"]], names[e["other_uid"]])) for e in found]
    assert sorted(pairs) == [[i, 50 + i] for i in range(20)]
    assert {e["distance"] for e in found} == {0.0}
    assert {e["member"] for e in found} == {mode == "group"}


def test_more_equal_embeddings_are_a_star_around_the_lowest_uid():
    """n copies are n - 1 edges, and the star shares one edge with a near row."""
    rows = vectors(2, 0)
    close = rows[0] + np.float16(0.02)
    pool = pool_of([*[rows[0]] * 40, close, rows[1]])
    found = edges(made(pool), SemanticDuplicates(eps=0.02, clusters=1))
    low = min(row.uid for row, _ in pool[:40])
    assert {e["uid"] for e in found if e["member"]} == {low}
    assert sum(e["member"] for e in found) == 39
    assert [{e["uid"], e["other_uid"]} for e in found if not e["member"]] == [
        {low, pool[40][0].uid}
    ]


# ------------------------------------------------------------------------------- neighbours


def test_neighbours_find_pairs_that_a_border_splits(monkeypatch):
    """With all clusters as neighbours every near pair is found once, in any buckets; with none
    those across a border are missed.
    """
    pool = pool_of(distinct(vectors(1500, 900, dims=4)))
    rows, uids = unit([v for _, v in pool]), [row.uid for row, _ in pool]
    close = zip(*np.nonzero(np.triu(rows @ rows.T, 1) >= 1 - 0.004), strict=True)
    wanted = {frozenset((uids[i], uids[j])) for i, j in close}
    config = SemanticDuplicates(eps=0.004, clusters=12)

    def found(neighbours: int) -> set[frozenset[str]]:
        some = edges(made(pool), config.model_copy(update={"neighbours": neighbours}))
        return {frozenset((e["uid"], e["other_uid"])) for e in some}

    assert len(wanted) > 200
    assert found(11) == found(99) == wanted
    assert found(0) < found(1) <= found(3) <= wanted
    monkeypatch.setattr(clustered, "SMALLEST_BYTES", 8 * 30)
    assert found(11) == wanted


def test_a_bucket_reads_no_more_than_it_may():
    """Its clusters and their partners together stay below the limit, where one cluster's do."""
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(200, 8)).astype(np.float32)
    sizes, limit = rng.integers(0, 1000, 200), 10_000
    for neighbours in (0, 3):
        partners = clustered.partners_of(centroids, neighbours)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clustered, "SMALLEST_BYTES", limit * 16)
            patch.setattr(clustered, "BUCKET_BYTES", limit * 16)
            bounds = clustered.plan(sizes, partners, 8)
        assert bounds[0] == 0
        assert bounds[-1] == 200
        for low, high in pairwise(bounds):
            held = {*range(low, high), *partners[low:high].ravel().tolist()} - {-1}
            assert sizes[sorted(held)].sum() <= limit
            assert low < high
    pairs = [(c, p) for c in range(200) for p in partners[c].tolist() if p >= 0]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)


def test_code_with_neighbours_is_refused():
    """Its order is that of one cluster; the message says what to set."""
    with pytest.raises(
        ValidationError, match=r"neighbours is 2 with mode: code.*set neighbours to 0"
    ):
        SemanticDuplicates(mode="code", neighbours=2)


# ------------------------------------------------------------------------------- floods


def flood(count: int, noise: float, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(size=32)
    return (centre + noise * rng.normal(size=(count, 32))).astype(np.float16)


def promises_hold(
    found: Sequence[Mapping[str, Any]], pool: Pool, eps: float
) -> dict[str, set[str]]:
    """All members of a star, and of two stars with an edge, are within eps; returns the stars."""
    row = dict(zip((r.uid for r, _ in pool), unit([v for _, v in pool]), strict=True))
    stars: dict[str, set[str]] = {}
    for edge in found:
        if edge["member"]:
            stars.setdefault(edge["uid"], {edge["uid"]}).add(edge["other_uid"])
    members = [e["other_uid"] for e in found if e["member"]]
    assert len(set(members)) == len(members)
    assert not set(members) & set(stars)

    def apart(one: set[str], other: set[str]) -> float:
        a, b = (np.stack([row[u] for u in sorted(us)]) for us in (one, other))
        return float(1 - (a @ b.T).min())

    for star in stars.values():
        assert apart(star, star) <= eps + 1e-9
    for edge in found:
        if not edge["member"]:
            ends = edge["uid"], edge["other_uid"]
            assert not set(ends) & set(members)
            assert apart(*(stars.get(end, {end}) for end in ends)) <= eps + 1e-9
    return stars


@pytest.mark.parametrize("block", [64, 2048])
def test_a_flood_of_near_copies_costs_its_own_length(block):
    """2 000 near copies and 400 others: linear edges, and every copy is in a star or leads one."""
    pool = pool_of([*flood(2000, 0.02), *vectors(400, 0, dims=32)])
    found = edges(made(pool), SemanticDuplicates(eps=0.05, clusters=3, block_rows=block))
    stars = promises_hold(found, pool, 0.05)
    assert len(found) < 2100
    assert sum(map(len, stars.values())) == 2000
    uids = sorted(row.uid for row, _ in pool[:2000])
    assert uids[0] in stars


def test_a_wide_flood_is_several_stars():
    """Copies that are spread over the threshold still cost few edges, and keep the promises."""
    pool = pool_of([*flood(600, 0.05), *flood(300, 0.12, seed=2)])
    found = edges(made(pool), SemanticDuplicates(eps=0.05, clusters=2))
    stars = promises_hold(found, pool, 0.05)
    assert any(len(star) > 100 for star in stars.values())


def test_99_near_copies_are_compared_pair_by_pair():
    """Below the size of a flood all pairs are there."""
    pool = pool_of(flood(100, 0.01))
    found = edges(made(pool), SemanticDuplicates(eps=0.05, clusters=1))
    assert len(found) == 100 * 99 // 2
    assert not any(e["member"] for e in found)
    more = pool_of(flood(101, 0.01))
    assert len(edges(made(more), SemanticDuplicates(eps=0.05, clusters=1))) == 100


# ------------------------------------------------------------------------------- later searches


def grown(pools: Sequence[Pool], config: SemanticDuplicates) -> tuple[Dataset, list[list[Any]]]:
    """A dataset that grows by a part, each searched as dedup does; the edges of each search."""
    data, searches = Dataset(f"memory://{uuid.uuid4().hex}"), []
    for part, pool in enumerate(pools):
        add_parts(data, {part: pool})
        searches.append(edges(data, config, None if part == 0 else [part]))
        publish(data, searches[-1])
    return data, searches


@pytest.mark.parametrize("mode", ["group", "code"])
def test_later_searches_add_what_one_search_finds(mode):
    """Three batches, searched one after the other, have the edges of the whole; the centroids and
    earlier assignments stay.
    """
    rows = distinct(vectors(1500, 500))
    pool = pool_of(np.random.default_rng(3).permutation(rows))
    pools = [pool[:700], pool[700:1100], pool[1100:]]
    config = SemanticDuplicates(eps=0.1, mode=mode, clusters=20)
    data, searches = grown(pools, config)
    assert min(map(len, searches)) > 20
    assert data.parts(CODES)[0].generation == 0
    ends = {(e["uid"], e["other_uid"]) for found in searches for e in found}
    assert len(ends) == sum(map(len, searches))
    if mode == "group":
        assert ends == {(a, b) for a, b, _ in groups_by_hand(data, pool, 0.1)}
    else:
        batch = {row.uid: at for at, some in enumerate(pools) for row, _ in some}
        assert all(batch[a] <= batch[b] for a, b in ends)
        close = {frozenset((a, b)) for a, b, _ in groups_by_hand(data, pool, 0.0999999)}
        assert {frozenset(e) for e in ends} <= close
        gone = {b for _, b in ends}
        assert all(len(pair & gone) >= 1 for pair in close)


def test_no_fresh_parts_have_no_edges():
    """A search over nothing new finds nothing."""
    data = made(POOL[-300:])
    publish(data, edges(data, SemanticDuplicates()))
    assert edges(data, SemanticDuplicates(), []) == []


def test_fresh_copies_join_the_stars_that_are_there():
    """A copy of a member joins its leader; of a pair in no star, that pair, the older one."""
    rows = vectors(40, 0, dims=32)
    first = pool_of([*flood(300, 0.01), *rows, rows[0]])
    again = pool_of([*flood(300, 0.01)[200:], *rows[:20]], "v")
    config = SemanticDuplicates(eps=0.05, clusters=4)
    _, (old, new) = grown([first, again], config)
    assert len(old) == 300
    assert len(new) == 120
    assert all(e["member"] for e in new)
    before = {row.uid for row, _ in first}
    assert {e["uid"] for e in new} <= before
    stars = promises_hold([*old, *new], [*first, *again], 0.05)
    assert sorted(map(len, stars.values())) == [2] * 19 + [3, 400]


def test_a_flood_that_comes_in_batches_stays_linear():
    """20 batches of 40 near copies: a star as soon as a flood is there, promises throughout."""
    copies = flood(800, 0.02)
    pools = [pool_of(copies[at : at + 40], f"b{at}_") for at in range(0, 800, 40)]
    data, searches = grown(pools, SemanticDuplicates(eps=0.05, clusters=1))
    found = [edge for some in searches for edge in some]
    stars = promises_hold(found, [pair for pool in pools for pair in pool], 0.05)
    assert len(stars) == 1
    assert max(map(len, searches[5:])) < 60
    assert data.artifact_in_use(CODES)


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_promises_hold_in_any_crowd(seed, neighbours, monkeypatch):
    """Dense batches, floods of 4: every edge keeps its promise, earlier stars stay as they are, and
    near pairs that are in no star share an edge.
    """
    monkeypatch.setattr(near, "FLOOD", 4)
    rng = np.random.default_rng(seed)
    turns = rng.choice(rng.uniform(0, 2, 12), 90) + rng.choice([0, 0.01, 0.04], 90) * rng.normal(
        size=90
    )
    rows = (3 * np.stack([np.cos(turns), np.sin(turns)], axis=1)).astype(np.float16)
    pools = [pool_of(some, f"b{at}_") for at, some in enumerate(np.split(rows, 3))]
    config = SemanticDuplicates(eps=0.003, clusters=2, neighbours=neighbours, block_rows=7)
    data, searches = grown(pools, config)
    found = [edge for some in searches for edge in some]
    pool = [pair for some in pools for pair in some]
    stars = promises_hold(found, pool, 0.003)
    assert any(len(star) > 4 for star in stars.values())
    starred = {uid for star in stars.values() for uid in star}
    ends = {frozenset((e["uid"], e["other_uid"])) for e in found}
    of = {uid: c for c, (uids, _, _) in enumerate(clusters_by_hand(data, pool)) for uid in uids}
    row = dict(zip((r.uid for r, _ in pool), unit(rows), strict=True))
    alone = [(a, b) for a, b in combinations(row, 2) if not {a, b} & starred]
    close = [(a, b) for a, b in alone if row[a] @ row[b] >= 1 - 0.003]
    assert all(frozenset(p) in ends for p in close if neighbours or of[p[0]] == of[p[1]])


def test_another_space_is_clustered_anew():
    """Embeddings that another model has made do not keep the centroids of the first."""
    data = made(POOL[-200:])
    config = SemanticDuplicates()
    edges(data, config)
    used = data.artifact_in_use(CODES)
    edges(data, SemanticDuplicates(eps=0.2), [0])
    assert data.artifact_in_use(CODES) == used
    edges(data, SemanticDuplicates(clusters=3), [0])
    assert data.artifact_in_use(CODES) != used


def test_only_the_files_of_the_last_search_are_kept():
    """The sorted embeddings are there once: what a search no longer reads goes."""
    data = Dataset(f"memory://{uuid.uuid4().hex}")
    config = SemanticDuplicates(clusters=3)
    for part in range(3):
        add_parts(data, {part: pool_of(vectors(50, 10, seed=part), f"{part}_")})
        publish(data, edges(data, config, None if part == 0 else [part]))
    edges(data, SemanticDuplicates(clusters=4))
    files = data.fs.find(f"{data.path}/_artifacts/inverted_semantic")
    assert sorted(f.rsplit(".", 1)[1] for f in files) == ["first", "rows"]
    assert sum(data.fs.size(f) for f in files if f.endswith(".rows")) == 150 * (44 + 2 * 16)


# ------------------------------------------------------------------------------- who takes part


def test_who_has_no_embedding_or_no_image_is_in_no_edge():
    """Null, all zeros, infinite, not a number, or failed: none of them has a copy."""
    row = vectors(1, 0)[0]
    odd = [np.where(np.arange(16) == 3, value, row) for value in (np.inf, np.nan)]
    pool = pool_of([row, row, None, None, row * 0, row * 0, *odd, *odd])
    failed = [(replace(r, url=f"failed{r.url}"), v) for r, v in pool[:2]]
    data = made([*pool, *failed], parts=1)
    gone = {r.uid for r, _ in failed}
    ordered = sorted((r for r, _ in [*pool, *failed]), key=lambda r: r.uid)
    rows = [replace(r, status="failed_to_download") if r.uid in gone else r for r in ordered]
    add_table(data, "samples", {0: samples_of(rows)}, ("urls",))
    for mode in ("group", "code"):
        found = edges(data, SemanticDuplicates(mode=mode, eps=0.9))
        assert [{e["uid"], e["other_uid"]} for e in found] == [{r.uid for r, _ in pool[:2]}]


def test_a_pool_without_embeddings_has_no_edges():
    """A column that is null throughout is no error."""
    pool = [(Row("a"), np.ones(4)), (Row("b"), None)]
    data = made(pool, parts=1)
    scores = scores_of([(row, None) for row, _ in sorted(pool, key=lambda p: p[0].uid)], 4)
    add_table(data, "scores_bootstrap", {0: scores}, ("urls", "samples"))
    search = find(Scope(data), SemanticDuplicates())
    assert [search.edges(b).num_rows for b in range(search.buckets)] == [0]


def test_missing_embeddings_are_named():
    """The message says what has to be set and which scores there are."""
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", [Row("x", scores={"clip": {"s": 0.3}})])
    message = "finder 'semantic': scores_bootstrap has no image_emb.*there are scores_clip"
    with pytest.raises(ValueError, match=message):
        find(Scope(data), SemanticDuplicates())
    assert tables(SemanticDuplicates(embeddings="clip")) == ("samples", "scores_clip")


def test_planted_clones_are_found():
    """Every copy whose cosine with its original is above the threshold and in its cluster."""
    rows = vectors(600, 0, dims=64)
    clones = (rows[:50].astype(np.float32) * 1.7).astype(np.float16)
    pool = pool_of([*rows, *clones])
    found = edges(made(pool), SemanticDuplicates(eps=0.001))
    uids = [row.uid for row, _ in pool]
    wanted = {frozenset((uids[i], uids[600 + i])) for i in range(50)}
    assert {frozenset((e["uid"], e["other_uid"])) for e in found} == wanted
