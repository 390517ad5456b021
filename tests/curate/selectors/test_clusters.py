"""What selectors by clusters share: exact quotas, numbers of clusters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from curate.selectors.clusters import how_many, quotas


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 700))
def test_quotas_are_exact_and_fair(sizes, count):
    """They add up, ask no cluster for more than it has, and are within one of the share."""
    found = quotas(sizes, count)
    rows = sum(sizes)
    taken = min(count, rows)
    assert sum(found) == taken
    for quota, size in zip(found, sizes, strict=True):
        assert 0 <= quota <= size
        assert rows == 0 or abs(quota - taken * size / rows) < 1


def test_no_clusters_have_no_quotas():
    """An empty pool is no error."""
    assert quotas([], 5) == []


def test_clusters_are_as_many_as_asked_or_the_square_root():
    """At least one, at most 3000."""
    assert [how_many(None, rows) for rows in (0, 1, 100, 10**6, 10**9)] == [1, 1, 10, 1000, 3000]
    assert how_many(7, 10**6) == 7
