"""Batches of ingest: what a second one adds, what a killed one leaves, where its rows lie."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.ingest import ingest
from curate.placement import bounds_of, part_of
from schemas.configs import IngestConfig
from schemas.tables import uid_of
from tests.lists import pairs, state, table, write


def test_a_second_batch_adds_only_what_is_new(tmp_path):
    """Known pairs are not added again, yet every pair of the batch is sighted, with its count."""
    data = Dataset(str(tmp_path / "data"))
    first = ingest(
        data, IngestConfig(path=write(tmp_path / "a.parquet", pairs(900)), part_rows=100)
    )
    before = state(data)["urls"]
    more = [*pairs(90, begin=900), *pairs(50), *pairs(20)]
    path = write(tmp_path / "b.parquet", more)
    second = ingest(data, IngestConfig(path=path, part_rows=100))
    assert {p: rows for p, rows in state(data)["urls"].items() if p in before} == before
    assert sorted(r["url"] for r in table(data, "urls")) == sorted(r["url"] for r in pairs(990))
    seen = [r for r in table(data, "sightings") if r["batch"] == second]
    assert {r["uid"]: r["n"] for r in seen} == {
        uid_of(r["url"], r["caption"]): 2 if r["width"] < 20 else 1
        for r in [*pairs(50), *more[:90]]
    }
    assert len([r for r in table(data, "sightings") if r["batch"] == first]) == 900


def test_a_batch_without_news_is_only_sighted(tmp_path):
    """A list of known pairs adds sightings and leaves urls as they are."""
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=write(tmp_path / "a.parquet", pairs(30))))
    urls = data.parts("urls")
    ingest(data, IngestConfig(path=write(tmp_path / "b.parquet", pairs(10))))
    assert data.parts("urls") == urls
    assert data.rows("sightings") == 40


def test_a_published_batch_is_not_read_again(tmp_path, caplog):
    """The second call returns the same name, publishes nothing and says so."""
    data = Dataset(str(tmp_path / "data"))
    config = IngestConfig(path=write(tmp_path / "a.parquet", pairs(30)))
    name, version = ingest(data, config), data.at
    with caplog.at_level(logging.INFO, "curate"):
        assert ingest(Dataset(str(tmp_path / "data")), config) == name
    assert "nothing to read" in caplog.text
    assert Dataset(str(tmp_path / "data")).at == version


def test_a_batch_name_stands_for_one_list(tmp_path):
    """Another list under a used batch name is refused."""
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=write(tmp_path / "a.parquet", pairs(3)), batch="day-1"))
    other = IngestConfig(path=write(tmp_path / "b.parquet", pairs(4)), batch="day-1")
    with pytest.raises(ValueError, match=r"has a batch 'day-1' already.*another `batch` name"):
        ingest(data, other)


def test_a_killed_ingest_is_redone_to_the_same_bytes(tmp_path, monkeypatch):
    """A run that died after some parts shows readers nothing; the next one makes the same files."""
    config = IngestConfig(path=write(tmp_path / "a.parquet", pairs(500)), part_rows=50)
    whole, killed = Dataset(str(tmp_path / "whole")), Dataset(str(tmp_path / "killed"))
    ingest(whole, config)
    writes, write_part = [0], Dataset.write

    def die(self: Dataset, *args: Any) -> None:
        writes[0] += 1
        if writes[0] == 14:
            raise KeyboardInterrupt
        write_part(self, *args)

    monkeypatch.setattr(Dataset, "write", die)
    with pytest.raises(KeyboardInterrupt):
        ingest(killed, config)
    monkeypatch.undo()
    assert Dataset(str(tmp_path / "killed")).tables() == []
    ingest(killed, config)
    files = {str(p.relative_to(tmp_path / "whole")) for p in (tmp_path / "whole").rglob("*.*")}
    assert files == {
        str(p.relative_to(tmp_path / "killed")) for p in (tmp_path / "killed").rglob("*.*")
    }
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()


def test_leftovers_of_a_killed_batch_are_not_taken_for_a_later_one(tmp_path, monkeypatch):
    """After a killed batch another one comes first; then both hold what they should."""
    data = Dataset(str(tmp_path / "data"))
    late = IngestConfig(path=write(tmp_path / "late.parquet", pairs(300)), part_rows=20)
    publish = Dataset.publish
    monkeypatch.setattr(Dataset, "publish", lambda self, *claims: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):  # noqa: PT011 - a crash has no words
        ingest(data, late)
    monkeypatch.setattr(Dataset, "publish", publish)
    early = IngestConfig(path=write(tmp_path / "early.parquet", pairs(60, begin=280)), part_rows=20)
    ingest(data, early)
    ingest(data, late)
    assert sorted(r["url"] for r in table(data, "urls")) == sorted(r["url"] for r in pairs(340))


def test_flushes_and_groups_change_nothing(tmp_path, monkeypatch):
    """A list that is spilled in many pieces and worked on in many groups gives the same tables."""
    rows = pairs(3000)
    path = write(tmp_path / "a.parquet", rows)
    plain, grouped = Dataset(str(tmp_path / "plain")), Dataset(str(tmp_path / "grouped"))
    ingest(plain, IngestConfig(path=path, part_rows=170))
    monkeypatch.setattr("curate.spill.GROUP_ROWS", 100)
    monkeypatch.setattr("curate.spill.FLUSH_BYTES", 20_000)
    monkeypatch.setattr("curate.sources.parquet.BATCH_ROWS", 128)
    ingest(grouped, IngestConfig(path=path, part_rows=170))
    assert state(plain) == state(grouped)


@given(place=st.integers(0, 2**64 - 1), count=st.integers(1, 2**31))
def test_a_place_lies_in_exactly_its_part(place, count):
    """part_of is floor(place * count / 2^64), and bounds_of its inverse."""
    part = int(part_of(np.array([place], np.uint64), count)[0])
    begin, end = bounds_of(part, count)
    assert part == place * count >> 64
    assert begin <= place < end
