"""D4: exact shares, copies that do not survive together, and the least typical pairs first."""

from __future__ import annotations

import logging
import math
import uuid
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from curate.selectors.d4 import COPY, redundancies
from models.kmeans import fit_centroids, nearest
from schemas.configs import ChooseCaption, D4Selector
from schemas.tables import draw
from tests.tiny import Row, tiny_dataset, whole


def rows_of(vectors: Any) -> list[Row]:
    return [
        Row(f"http://a/{i}", scores={"bootstrap": {"image_emb": np.asarray(v).tolist()}})
        for i, v in enumerate(vectors)
    ]


def select(rows: list[Row], config: D4Selector) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, 3)
    compress(data, [config], ChooseCaption())
    return data


def unit(vectors: Any) -> Any:
    rows = np.asarray(vectors, np.float16).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered(vectors: dict[str, Any], config: D4Selector) -> dict[str, tuple[int, float]]:
    """Cluster and distance by uid: k-means of all of them, one row at a time."""
    sample = sorted(vectors, key=lambda uid: draw(config.seed, uid))[: config.train_rows]
    clusters = config.clusters or max(1, round(len(vectors) ** 0.5))
    train = np.array([vectors[uid] for uid in sorted(sample)])
    centroids = fit_centroids(train, clusters, config.iterations, config.seed)
    found = {}
    for uid, vector in vectors.items():
        cluster = int(nearest(vector[None], centroids)[0])
        found[uid] = (cluster, max(0.0, float(1 - (vector * centroids[cluster]).sum())))
    return found


def by_hand(rows: list[Row], config: D4Selector) -> list[str]:
    """D4 as it is written, one pair at a time."""
    raw = [row.scores["bootstrap"]["image_emb"] for row in rows]
    vectors = dict(zip([row.uid for row in rows], unit(raw), strict=True))
    places = clustered(vectors, config)
    members = defaultdict(list)
    for uid in sorted(vectors, key=lambda uid: (-places[uid][1], uid)):
        members[places[uid][0]].append(uid)
    redundancy = {
        uid: max((float(vectors[uid] @ vectors[other]) for other in cluster[:at]), default=-2)
        for cluster in members.values()
        for at, uid in enumerate(cluster)
    }
    remain = math.floor(len(rows) * config.dedup_fraction)
    kept = sorted(sorted(vectors), key=redundancy.__getitem__)[:remain]
    places = clustered({uid: vectors[uid] for uid in kept}, config)
    assert config.count is not None
    return sorted(kept, key=lambda uid: (-places[uid][1], uid))[: config.count]


@pytest.mark.parametrize(
    ("seed", "clusters", "train_rows"), [(0, None, 1000), (1, 3, 1000), (2, 5, 40)]
)
def test_it_is_what_the_papers_say(seed, clusters, train_rows):
    """The fast way selects what the plain one does, in the same order."""
    rows = rows_of(np.random.default_rng(seed).normal(size=(150, 12)))
    config = D4Selector(count=60, seed=seed, clusters=clusters, train_rows=train_rows)
    found = sorted(whole(select(rows, config), "subset_d4"), key=lambda row: row["rank"])
    assert [row["uid"] for row in found] == by_hand(rows, config)


@pytest.mark.parametrize("dedup_fraction", [0.5, 0.6])
def test_copies_never_survive_together(dedup_fraction):
    """Of 40 pairs, half of which are copies, one of each set stays where there is room for it."""
    vectors = np.random.default_rng(0).normal(size=(20, 6))
    copied = np.concatenate([vectors, vectors[:10], vectors[:5], 2 * vectors[:5]])
    rows = rows_of(copied)
    of = {row.uid: str(unit([v])[0].tobytes()) for row, v in zip(rows, copied, strict=True)}
    config = D4Selector(count=20, dedup_fraction=dedup_fraction, clusters=3)
    found = [of[row["uid"]] for row in whole(select(rows, config), "subset_d4")]
    assert len(found) == 20
    if dedup_fraction == 0.5:
        assert len(set(found)) == 20


@pytest.mark.parametrize("dedup_fraction", [0.75, 1])
def test_the_kept_are_farther_from_their_centroids(dedup_fraction):
    """On the mean than all that is dropped, and each than any where no copy is dropped first."""
    rows = rows_of(np.random.default_rng(3).normal(size=(120, 8)))
    data = select(rows, D4Selector(fraction=0.3, dedup_fraction=dedup_fraction))
    codes = {row["uid"]: row for row in whole(data, "codes_d4_prototypes")}
    subset = {row["uid"]: row for row in whole(data, "subset_d4")}
    kept = [codes[uid]["distance"] for uid in subset]
    dropped = [row["distance"] for uid, row in codes.items() if uid not in subset]
    assert (len(kept), len(dropped)) == (36, 84)
    assert np.mean(kept) > np.mean(dropped)
    assert dedup_fraction < 1 or min(kept) >= max(dropped)
    assert all(row["cluster"] == codes[uid]["cluster"] for uid, row in subset.items())


def test_a_count_above_the_deduplicated_share_lifts_it(caplog):
    """The size that was asked for wins over dedup_fraction, and the log says so."""
    vectors = np.random.default_rng(0).normal(size=(20, 6))
    rows = rows_of([*vectors, *vectors[:5]])
    with caplog.at_level(logging.WARNING):
        found = whole(select(rows, D4Selector(count=20, dedup_fraction=0.5)), "subset_d4")
    originals, copies = ({r.uid for r in rows[a:b]} for a, b in ((0, 5), (20, 25)))
    uids = {row["uid"] for row in found}
    assert len(uids) == 20
    assert len(uids & (originals | copies)) == 5
    assert "dedup_fraction 0.5 of 25 pairs is less than the 20 asked for" in caplog.text


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.integers(0, 99))
def test_redundancy_is_the_largest_cosine_in_the_window(n, size, window, seed):
    """Blocks of any size give each pair its nearest of those before it, `window` blocks back; an
    equal one at the same distance counts as more than any cosine.
    """
    rng = np.random.default_rng(seed)
    rows = unit(rng.integers(-2, 3, size=(n, 3)) + 0.5)
    distances = np.sort(1 - rows[:, 0])[::-1].astype(np.float32)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    blocks = [
        pa.table(
            {
                "uid": [str(i) for i in range(at, min(at + size, n))],
                "cluster": pa.array([7] * len(rows[at : at + size]), pa.int32()),
                "distance": distances[at : at + size],
                "place": range(at, min(at + size, n)),
            }
        )
        for at in range(0, n, size)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.selectors.d4.WINDOW", window)
        found = np.concatenate([values for _, values in redundancies(blocks, rows)])
    for j in range(n):
        before = range(max(0, (j // size - window) * size), j)
        if any((rows[i] == rows[j]).all() and distances[i] == distances[j] for i in range(j)):
            assert found[j] == COPY
        else:
            assert found[j] == pytest.approx(
                max((float(rows[i] @ rows[j]) for i in before), default=-2), abs=1e-5
            )


def test_clusters_are_deduplicated_by_themselves():
    """A pair of another cluster makes none redundant."""
    rows = np.array([[1.0, 0.0]] * 3, np.float32)
    far = pa.array([0.5], pa.float32())
    blocks = [
        pa.table({"uid": [str(at)], "cluster": [cluster], "distance": far, "place": [at]})
        for at, cluster in enumerate([0, 1, 1])
    ]
    assert [float(v[0]) for _, v in redundancies(blocks, rows)] == [-2, -2, COPY]
