"""Density: the quotas solve the quadratic programme, and each cluster gives its farthest pairs."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from curate.selectors.density import between, project, softmax, whole
from schemas.configs import ChooseCaption, DensitySelector
from tests.tiny import Row, tiny_dataset
from tests.tiny import whole as whole_table

AXES = np.eye(4)


def blobs(sizes: list[int], spread: list[float]) -> list[Row]:
    """So many pairs around each axis, as far from it."""
    rng = np.random.default_rng(0)
    return [
        Row(
            f"http://{axis}/{i}",
            scores={"bootstrap": {"image_emb": (AXES[axis] + rng.normal(0, far, 4)).tolist()}},
        )
        for axis, (size, far) in enumerate(zip(sizes, spread, strict=True))
        for i in range(size)
    ]


def select(rows: list[Row], config: DensitySelector) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    compress(data, [config], ChooseCaption())
    return data


def taken(rows: list[Row], config: DensitySelector) -> list[int]:
    """Pairs taken around each axis."""
    axis = {row.uid: int(row.url.split("/")[2]) for row in rows}
    found = [axis[row["uid"]] for row in whole_table(select(rows, config), "subset_density")]
    return np.bincount(found, minlength=max(axis.values()) + 1).tolist()


@st.composite
def programmes(drawn) -> tuple[Any, Any, Any, int]:
    """wanted, least, most, count of a programme that has a solution."""
    most = np.array(drawn(st.lists(st.integers(0, 40), min_size=1, max_size=12)))
    least = np.minimum(most, drawn(st.integers(0, 6)))
    count = drawn(st.integers(int(least.sum()), int(most.sum())))
    size = st.lists(st.floats(0, 3), min_size=len(most), max_size=len(most))
    return softmax(np.array(drawn(size)) / 0.3) * count, least, most, count


@settings(max_examples=300)
@given(programmes())
def test_the_projection_satisfies_the_optimality_conditions(programme):
    """Feasible, and one multiplier: x - wanted equals it inside the bounds, is at least it at the
    lower bound and at most it at the upper one. The programme is convex: that is its solution.
    """
    wanted, least, most, count = programme
    x = project(wanted, least, most, count)
    assert x.sum() == pytest.approx(count, abs=1e-6)
    assert (x >= least - 1e-9).all()
    assert (x <= most + 1e-9).all()
    pull = x - wanted
    can_fall, can_rise = x > least + 1e-6, x < most - 1e-6
    assert pull[can_fall].max(initial=-np.inf) <= pull[can_rise].min(initial=np.inf) + 1e-6


@settings(max_examples=60)
@given(programmes(), st.integers(0, 2**32))
def test_no_feasible_point_is_nearer(programme, seed):
    """Moving some of one cluster's quota to another never comes nearer to what is wanted."""
    wanted, least, most, count = programme
    x = project(wanted, least, most, count)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        a, b = rng.integers(len(x), size=2)
        move = rng.uniform(0, max(0.0, min(x[a] - least[a], most[b] - x[b])))
        other = x.copy()
        other[a] -= move
        other[b] += move
        assert ((other - wanted) ** 2).sum() >= ((x - wanted) ** 2).sum() - 1e-6


@settings(max_examples=300)
@given(programmes())
def test_whole_quotas_are_exact_and_within_one_of_the_solution(programme):
    """They add up, stay within the bounds, and none is a whole pair from its share."""
    wanted, least, most, count = programme
    x = project(wanted, least, most, count)
    found = whole(x, least, most, count)
    assert found.sum() == count
    assert (found >= least).all()
    assert (found <= most).all()
    assert (np.abs(found - x) < 1 + 1e-5).all()


def test_a_high_temperature_gives_equal_shares():
    """12 of 20, 10 and 3: the small cluster gives all, the others the same."""
    rows = blobs([20, 10, 3], [0.02, 0.1, 0.05])
    assert taken(rows, DensitySelector(count=15, clusters=3, temperature=1e9)) == [6, 6, 3]


def test_complex_clusters_give_more():
    """Of equal clusters the widest gives most, the tightest least, and a lower temperature tells
    them more apart.
    """
    rows = blobs([30, 30, 30], [0.01, 0.1, 0.2])
    warm, cold = (
        taken(rows, DensitySelector(count=30, clusters=3, temperature=t)) for t in (0.05, 0.02)
    )
    assert warm[0] < warm[1] < warm[2]
    assert cold[0] <= warm[0]
    assert warm[2] < cold[2] <= 30


@pytest.mark.parametrize("count", [6, 30, 71])
def test_each_cluster_gives_its_farthest(count):
    """No pair that is left is farther from its centroid than one of its cluster that is taken."""
    rows = blobs([30, 20, 12, 10], [0.02, 0.1, 0.2, 0.3])
    data = select(rows, DensitySelector(count=count))
    subset = {row["uid"]: row for row in whole_table(data, "subset_density")}
    kept, left = defaultdict(list), defaultdict(list)
    for row in whole_table(data, "codes_density"):
        (kept if row["uid"] in subset else left)[row["cluster"]].append(row["distance"])
        if row["uid"] in subset:
            assert subset[row["uid"]]["cluster"] == row["cluster"]
    assert len(subset) == count
    for cluster in kept:
        assert min(kept[cluster]) >= max(left[cluster], default=0)


@pytest.mark.parametrize(("min_samples", "expected"), [(0, 0), (3, 3), (50, 8)])
def test_min_samples_holds_as_far_as_the_count_allows(min_samples, expected):
    """The tightest cluster gives what every one has to, where a low temperature gives it none."""
    rows = blobs([30, 30, 30], [0.01, 0.02, 0.2])
    config = DensitySelector(count=24, clusters=3, temperature=1e-4, min_samples=min_samples)
    found = taken(rows, config)
    assert found[0] == expected
    assert sum(found) == 24


def test_the_distance_between_clusters_is_of_the_nearest_others():
    """Of three directions, each counts its one nearest; a direction alone has none."""
    rows = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    assert between(rows, 1) == pytest.approx([0.4, 0.4, 1.6])
    assert between(rows, 20) == pytest.approx([1.2, 1.0, 1.8])
    assert between(rows[:1], 20).tolist() == [0]
