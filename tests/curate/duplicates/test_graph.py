"""The graph of edges, and the walk over it, beside the rule word by word."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.duplicates.graph import Graph, load_graph, load_orders, walk

EMPTY = np.array([], dtype=np.int64)
Edge = tuple[int, int, bool, float]


def graph(group: list[int], near: dict[int, dict[int, float]]) -> Graph:
    """Of each pair's star, and the stars near each one."""
    rows = [(a, b, d) for a, some in sorted(near.items()) for b, d in sorted(some.items())]
    first = np.searchsorted([a for a, _, _ in rows], np.arange(max(group, default=-1) + 2))
    ends = np.array([b for _, b, _ in rows], np.int64)
    return Graph(np.array(group), first, ends, np.array([d for _, _, d in rows], np.float32))


def test_the_walk_uses_the_first_graph_that_has_a_kept_partner():
    """A verdict is the number of the graph and the pair that stays, -1 for a pair that stays or
    has no edge.
    """
    exact = graph([0, 0, -1, -1], {})
    near = graph([0, 1, 2, -1], {0: {1: 3.0}, 1: {0: 3.0, 2: 5.0}, 2: {1: 5.0}})
    why, of = walk([exact, near], 4)
    assert (why.tolist(), of.tolist()) == ([-1, 0, -1, -1], [-1, 0, -1, -1])
    why, of = walk([near], 3)
    assert (why.tolist(), of.tolist()) == ([-1, 0, -1], [-1, 0, -1])
    why, _ = walk([near.within(3.0)], 3)
    assert why.tolist() == [-1, 0, -1]
    why, _ = walk([near.within(2.0)], 3)
    assert why.tolist() == [-1, -1, -1]


def connection(edges: list[Edge], numbers: dict[int, int]) -> Any:
    """A connection with `edges` between uids u00, u01 ... and `nodes`: those that take part."""
    con = duckdb.connect()
    table = pa.table(
        {
            "uid": [f"u{a:02d}" for a, *_ in edges],
            "other_uid": [f"u{b:02d}" for _, b, *_ in edges],
            "distance": pa.array([d for *_, d in edges], pa.float32()),
            "member": pa.array([m for *_, m, _ in edges], pa.bool_()),
        },
        schema=pa.schema(
            {
                "uid": pa.string(),
                "other_uid": pa.string(),
                "distance": pa.float32(),
                "member": pa.bool_(),
            }
        ),
    )
    nodes = {"uid": [f"u{u:02d}" for u in numbers], "number": list(numbers.values())}
    kinds = pa.schema({"uid": pa.string(), "number": pa.int64()})
    for name, rows in (("edges", table), ("nodes", pa.table(nodes, schema=kinds))):
        con.register(f"_{name}", rows)
        con.execute(f"CREATE TABLE {name} AS FROM _{name}")
    return con


def stars_of(edges: list[Edge], uids: range) -> dict[int, int]:
    """The lowest uid of each uid's connected component of member edges, by repeated sweeps."""
    star = {u: u for u in uids}
    changed = True
    while changed:
        changed = False
        for a, b, member, _ in edges:
            low = min(star[a], star[b])
            if member and (star[a] != low or star[b] != low):
                star[a] = star[b] = low
                changed = True
    return star


def by_hand(edges: list[Edge], numbers: dict[int, int]) -> dict[int, int | None]:
    """By uid: None for who stays, else who stays for it; who is first in the walk is."""
    star = stars_of(edges, range(12))
    linked = {u for a, b, *_ in edges for u in (a, b)}
    near = {(star[a], star[b]) for a, b, member, _ in edges if not member}
    near |= {(b, a) for a, b in near}
    kept: list[int] = []
    found: dict[int, int | None] = {}
    for uid in sorted(numbers, key=lambda u: numbers[u]):
        partners = [
            k
            for k in kept
            if k in linked
            and uid in linked
            and (star[k] == star[uid] or (star[k], star[uid]) in near)
        ]
        found[uid] = partners[0] if partners else None
        if not partners:
            kept.append(uid)
    return found


EDGES = st.lists(
    st.tuples(
        st.integers(0, 11), st.integers(0, 11), st.booleans(), st.sampled_from([1.0, 2.0])
    ).filter(lambda e: e[0] != e[1]),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(EDGES, st.permutations(range(12)), st.integers(0, 12))
def test_the_walk_over_a_table_is_the_rule_by_hand(edges, order, taking_part):
    """Stars are what member edges join, in any number of steps and in circles; whoever goes has a
    partner that stays; pairs that take no part neither stay for others nor hide a star.
    """
    numbers = {uid: n for n, uid in enumerate(order[:taking_part])}
    con = connection(edges, numbers)
    why, of = walk([load_graph(con, "edges", len(numbers))], len(numbers))
    found = {u: None if why[n] < 0 else order[of[n]] for u, n in numbers.items()}
    expected = by_hand(edges, numbers)
    assert {u: p is None for u, p in found.items()} == {u: p is None for u, p in expected.items()}
    star = stars_of(edges, range(12))
    near = {frozenset((star[a], star[b])) for a, b, member, _ in edges if not member}
    for uid, partner in found.items():
        if partner is not None:
            assert found[partner] is None
            assert star[uid] == star[partner] or frozenset((star[uid], star[partner])) in near


def test_orders_are_read_among_those_that_take_part():
    """An edge of an order counts where both of its ends take part."""
    con = connection(
        [(0, 1, False, 0.5), (2, 1, False, 0.1), (3, 4, False, 0.2)], {0: 5, 1: 2, 3: 0}
    )
    orders = load_orders(con, "edges")
    assert (orders.before.tolist(), orders.pair.tolist()) == ([5], [2])
    assert orders.within(0.4).pair.tolist() == []
