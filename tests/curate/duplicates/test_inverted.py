"""The inverted file: rows by cluster, read by ranges from any store."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from curate.dataset import Dataset
from curate.duplicates.inverted import Inverted, Records, row_type, tidy


def records(count: int, clusters: int, seed: int) -> Records:
    """Rows sorted by cluster."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, dtype=row_type(3))
    rows["uid"] = [uuid.UUID(bytes=rng.bytes(16)).hex for _ in range(count)]
    rows["cluster"] = np.sort(rng.integers(0, clusters, count))
    rows["row"] = rng.normal(size=(count, 3))
    return rows


@pytest.mark.parametrize("where", ["memory", "local"])
def test_ranges_of_clusters_come_back_from_all_files(where, tmp_path):
    """Every range has the rows of its clusters, empty clusters and empty files included."""
    root = f"memory://{uuid.uuid4().hex}" if where == "memory" else str(tmp_path)
    data = Dataset(root)
    made = Inverted(data, f"{data.path}/_artifacts/x/k", ("a", "b", "c"), row_type(3), 7)
    files = [records(50, 6, 0), records(0, 6, 1), records(3, 6, 2)]
    assert made.missing() == [0, 1, 2]
    for name, rows in zip(made.names, files, strict=True):
        assert made.write(name, (rows[at : at + 8] for at in range(0, len(rows), 8))) == len(rows)
    assert made.missing() == []
    whole = np.concatenate(files)
    assert made.sizes().tolist() == np.bincount(whole["cluster"], minlength=7).tolist()
    for ranges in ([(0, 7)], [(2, 4)], [(6, 7)], [(0, 1), (3, 6)]):
        wanted = [c for low, high in ranges for c in range(low, high)]
        mine = whole[np.isin(whole["cluster"], wanted)]
        found = made.read(ranges)
        by_uid, mine_by_uid = found[np.argsort(found["uid"])], mine[np.argsort(mine["uid"])]
        assert by_uid.tobytes() == mine_by_uid.tobytes()


def test_a_file_without_its_index_is_not_there(tmp_path):
    """The index is written last: what a killed run has left is written anew."""
    data = Dataset(str(tmp_path))
    made = Inverted(data, f"{data.path}/_artifacts/x/k", ("a", "b"), row_type(3), 2)
    for name in made.names:
        made.write(name, [records(5, 2, 0)])
    data.fs.rm(f"{made.folder}/b.first")
    assert made.missing() == [1]


def test_tidy_leaves_what_is_used(tmp_path):
    """Files of other states and folders of other centroids go."""
    data = Dataset(str(tmp_path))
    above = f"{data.path}/_artifacts/x"
    for key, names in (("old", ("a",)), ("new", ("a", "b"))):
        made = Inverted(data, f"{above}/{key}", names, row_type(3), 2)
        for name in names:
            made.write(name, [records(5, 2, 0)])
    used = Inverted(data, f"{above}/new", ("b",), row_type(3), 2)
    tidy(data, used.folder, used)
    left = sorted(p.relative_to(above).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["new/b.first", "new/b.rows"]
