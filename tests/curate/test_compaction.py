"""Many narrow parts become one file, and nobody notices."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curate import compaction
from curate.claims import Claim
from curate.dataset import Dataset
from curate.query import query
from schemas.configs import Rules
from schemas.tables import DECISIONS


@pytest.fixture(params=["local", "memory"])
def data(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Dataset:
    monkeypatch.setattr(compaction, "ROWS", 20)
    monkeypatch.setattr(compaction, "LEAST_PARTS", 5)
    return Dataset(str(tmp_path) if request.param == "local" else f"memory://c-{tmp_path.name}")


def rows(part: int) -> pa.Table:
    """Part 3 is empty, the others have four rows."""
    uids = [f"{part:03d}-{i}" for i in range(0 if part == 3 else 4)]
    values = [{"uid": u, "keep": True, "reason": None} for u in uids]
    return pa.Table.from_pylist(values, schema=DECISIONS)


def filled(data: Dataset, table: str = "decisions_quality", parts: int = 14) -> Claim:
    claim = data.claim(table, Rules(), artifact="b", append=True)
    for part in range(parts):
        data.write(claim, part, rows(part))
    data.publish(claim)
    return claim


def test_neighbours_share_a_file_and_read_as_before(data: Dataset):
    """Full runs are moved, the rest waits; each part reads the same rows and columns."""
    filled(data)
    files = [f.rsplit("/", 1)[1] for f in data.files("decisions_quality")]
    assert len(files) == 6  # two compacted ones, the empty part, and three that wait
    assert sum("-" in f for f in files) == 2
    for part in range(14):
        assert data.read("decisions_quality", part).equals(rows(part))
    assert data.read("decisions_quality", 5, ["uid"]).column_names == ["uid"]
    found = query(data, "SELECT count(DISTINCT uid) AS n FROM decisions_quality")
    assert found["n"][0].as_py() == 13 * 4


def test_compaction_changes_no_state(data: Dataset):
    """Nothing is missing or published again afterwards, and a new generation still wins."""
    claim = filled(data)
    version = data.at
    assert data.missing(claim, range(14)) == []
    assert Dataset(data.root).publish(claim) == version
    data.write(claim, 6, rows(7), again=True)
    data.publish(claim)
    assert data.parts("decisions_quality")[6].generation == 1
    assert data.read("decisions_quality", 6).equals(rows(7))
    assert data.read("decisions_quality", 7).equals(rows(7))


def test_a_view_does_not_see_the_rows_of_a_part_that_was_made_anew(data: Dataset):
    """The others of its compacted file move out of that: nobody is counted twice."""
    claim = filled(data)
    old = data.parts("decisions_quality")[6]
    assert old.row_group is not None
    data.write(claim, 6, rows(99), again=True)
    data.publish(claim)
    assert old.file not in {p.file for p in data.parts("decisions_quality").values()}
    for part in range(14):
        assert data.read("decisions_quality", part).equals(rows(99 if part == 6 else part))
    found = query(data, "SELECT count(*) AS n, count(DISTINCT uid) AS d FROM decisions_quality")
    assert found.to_pylist() == [{"n": 13 * 4, "d": 13 * 4}]


def test_single_files_may_go_once_they_are_compacted(data: Dataset):
    """The manifest knows a compacted part although its own file is not there any more."""
    claim = filled(data)
    for part in range(3):
        data.fs.rm(f"{data.path}/decisions_quality/{part:08d}.g0.parquet")
    again = Dataset(data.root)
    assert again.read("decisions_quality", 1).equals(rows(1))
    assert again.publish(claim) == data.at


def test_tables_that_number_the_parts_stay_as_they_are(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
):
    """urls and samples keep one file a part."""
    monkeypatch.setattr(compaction, "NUMBERING", ("decisions_quality",))
    filled(data)
    assert len(data.files("decisions_quality")) == 14
