"""The cluster selector: draws within clusters, the same for every placement."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest

from curate.compress import compress
from curate.dataset import Dataset
from models.kmeans import fit_centroids, nearest, unit_rows
from schemas.configs import ChooseCaption, ClusterSelector
from schemas.tables import draw
from tests.planted import coded
from tests.tiny import Row, by_url, tiny_dataset, whole

AXES = np.eye(4)


def blobs(*sizes: int) -> list[Row]:
    """Rows around the axes, so many around each, and one without an embedding."""
    rng = np.random.default_rng(0)
    rows = [
        Row(
            f"http://{axis}/{i}",
            scores={"bootstrap": {"image_emb": (AXES[axis] * 5 + rng.normal(0, 0.1, 4)).tolist()}},
        )
        for axis, size in enumerate(sizes)
        for i in range(size)
    ]
    return [*rows, Row("http://blank", scores={"bootstrap": {"image_emb": None}})]


def cut(rows: list[Row], config: ClusterSelector, parts: int = 2, salt: int = 0) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, by_url(parts, salt))
    compress(data, [config], ChooseCaption())
    return data


def test_each_cluster_gives_its_share_by_lowest_draw():
    """Clusters of 20, 10 and 6 give 10, 5 and 3 of 18, each the lowest draws of its own."""
    rows = blobs(20, 10, 6)
    config = ClusterSelector(count=18, clusters=3, seed=4)
    chosen = whole(cut(rows, config), "subset_cluster")
    by_axis: dict[str, list[str]] = {}
    for row in rows[:-1]:
        by_axis.setdefault(row.url.split("/")[2], []).append(row.uid)
    expected = {
        uid
        for axis, quota in (("0", 10), ("1", 5), ("2", 3))
        for uid in sorted(by_axis[axis], key=lambda uid: draw(4, uid))[:quota]
    }
    assert {row["uid"] for row in chosen} == expected
    assert len({row["cluster"] for row in chosen}) == 3
    in_order = sorted(chosen, key=lambda row: row["rank"])
    assert [row["uid"] for row in in_order] == sorted(expected, key=lambda uid: draw(4, uid))


def test_placement_changes_nothing():
    """The same pairs, clusters and ranks for any split into parts, and any order of the list."""
    rows = blobs(17, 9, 5, 3)
    config = ClusterSelector(fraction=0.5)
    first = cut(rows, config, 1)
    second = cut(rows[::-1], config, 5, salt=3)
    assert whole(first, "subset_cluster") == whole(second, "subset_cluster")
    assert whole(first, "codes_cluster") == whole(second, "codes_cluster")


def test_a_pair_without_an_embedding_is_never_selected():
    """It has no cluster, and asking for all gives all others."""
    rows = blobs(4, 4)
    data = cut(rows, ClusterSelector(count=9))
    assert {row["uid"] for row in whole(data, "subset_cluster")} == {r.uid for r in rows[:-1]}
    clusters = {row["uid"]: row["cluster"] for row in whole(data, "codes_cluster")}
    assert clusters[rows[-1].uid] is None


def test_a_pool_without_embeddings_gives_an_empty_subset():
    """Nothing to cluster is nothing selected."""
    rows = [
        Row("x", scores={"bootstrap": {"image_emb": [1.0, 2.0]}}, keep=False),
        Row("y", keep=True),
    ]
    assert whole(cut(rows, ClusterSelector(count=2)), "subset_cluster") == []


@pytest.mark.parametrize("embeddings", ["clip", "bootstrap"])
def test_missing_embeddings_are_named(embeddings):
    """A scorer that has not run, or has no embeddings, is an error that says which there are."""
    rows = [Row("x", scores={"bootstrap": {"clip_score": 0.3}})]
    message = f"'cluster': scores_{embeddings} has no image_emb.*there are scores_bootstrap"
    with pytest.raises(ValueError, match=message):
        cut(rows, ClusterSelector(count=1, embeddings=embeddings))


def test_k_means_is_fitted_on_at_most_train_rows():
    """With fewer training rows than clusters, there are as many clusters as training rows."""
    data = cut(blobs(10, 10), ClusterSelector(count=5, clusters=8, train_rows=2))
    clusters = {row["cluster"] for row in whole(data, "codes_cluster")}
    assert clusters - {None} <= {0, 1}


def test_a_fit_is_the_same_twice_and_of_unit_length():
    """Equal input and seed give equal bits; fewer rows than clusters give fewer centroids."""
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = fit_centroids(rows, 7, 5, 1), fit_centroids(rows, 7, 5, 1)
    assert np.array_equal(first, second)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert fit_centroids(rows[:3], 7, 5, 1).shape == (3, 8)


def test_nearest_does_not_depend_on_the_batch():
    """A row's cluster is the same alone and among 3000 others."""
    rng = np.random.default_rng(0)
    rows, centroids = (rng.normal(size=(n, 16)).astype(np.float32) for n in (3000, 40))
    together = nearest(rows, centroids)
    assert together[::500].tolist() == [
        int(nearest(rows[i : i + 1], centroids)[0]) for i in range(0, 3000, 500)
    ]


def test_unit_rows_marks_what_cannot_be_used():
    """Nulls and rows with infinities or NaN are unknown; the others have length 1."""
    column = pa.chunked_array(
        [[[3.0, 4.0], None], [[float("nan"), 1.0], [0.0, 0.0]]], pa.list_(pa.float32(), 2)
    )
    rows, known = unit_rows(column)
    assert known.tolist() == [True, False, False, True]
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 0], [0, 0]]


def test_the_codes_of_a_captioner_are_not_overwritten():
    """A cluster selector with a captioner's name is refused: its clusters would replace codes."""
    data = coded(f"memory://{uuid.uuid4().hex}", blobs(4, 4), [[1, 2]] * 9)
    message = "'codebook' writes its clusters to codes_codebook, which 'codes_codebook' has made"
    with pytest.raises(ValueError, match=message):
        compress(data, [ClusterSelector(name="codebook", count=2)], ChooseCaption())
