"""What rules look at is gathered chunk by chunk, whatever the files look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate import compaction, evidence
from curate.dataset import Dataset
from curate.evidence import chunks, columns_read, gathered, parts_to_judge
from curate.filter import filter_pairs
from curate.query import query
from schemas.configs import Rule
from tests.scored import pool, scored, uid
from tests.tiny import add_table, whole

SCORE = "scores_s__clip_score"
LOW = Rule(name="low", value=SCORE, drop_below=0.25)


def seen(data: Dataset, *rules: Rule) -> dict[str, object]:
    with gathered(data, rules, columns_read(data, rules), parts_to_judge(data)) as found:
        return {row["uid"]: row["x0"] for row in found.ask("SELECT * FROM evidence").to_pylist()}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    """However many parts are joined at once, the same pairs are seen and the same decided."""
    monkeypatch.setattr(evidence, "CHUNK_ROWS", size)
    data = pool(str(tmp_path), {i: i / 32 for i in range(32)}, parts=6, failed=[3], unscored=[5])
    assert [p for chunk in chunks(data, range(6)) for p in chunk] == list(range(6))
    expected = {uid(i): None if i == 5 else i / 32 for i in range(32) if i != 3}
    assert seen(data, LOW) == expected
    filter_pairs(data, [LOW, Rule(name="top", value=SCORE, keep_top=0.5)])
    kept = {r["uid"] for r in whole(data, "decisions_quality") if r["keep"]}
    assert kept == {uid(i) for i in range(17, 32)}


def test_a_part_that_was_made_anew_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows of an older generation that still lie in a compacted file are not seen."""
    monkeypatch.setattr(compaction, "ROWS", 4)
    monkeypatch.setattr(compaction, "LEAST_PARTS", 2)
    data = pool(str(tmp_path), dict.fromkeys(range(40), 0.5), parts=5)
    assert any(part.row_group is not None for part in data.parts("scores_s").values())
    uids = data.read("samples", 1)["uid"].to_pylist()
    rows = [{"uid": u, "caption_id": u, "clip_score": 0.125} for u in uids]
    anew = scored(rows).select(["uid", "caption_id", "clip_score"])
    add_table(data, "scores_s", {1: anew}, ["urls", "samples"])
    assert data.parts("scores_s")[1].row_group is None
    expected = {uid(i): 0.5 for i in range(40)} | dict.fromkeys(uids, 0.125)
    assert seen(data, LOW) == expected
    filter_pairs(data, [LOW])
    assert len(whole(data, "decisions_quality")) == 40
    assert {r["uid"] for r in whole(data, "decisions_quality") if not r["keep"]} == set(uids)


def test_columns_are_found_whatever_their_case(tmp_path: Path):
    """SQL's names have no case; what is read of the files follows."""
    data = pool(str(tmp_path), {0: 0.125, 1: 0.5})
    rule = Rule(name="low", drop_if="scores_s__CLIP_SCORE < 0.25")
    assert seen(data, rule) == {uid(0): True, uid(1): False}


def test_only_what_is_spoken_of_is_read(tmp_path: Path):
    """A rule over scores alone opens no list of URLs."""
    data = pool(str(tmp_path), {0: 0.5})
    columns = columns_read(data, [LOW])
    for file in data.files("urls"):
        data.fs.rm(file)
    with gathered(data, [LOW], columns, parts_to_judge(data)) as found:
        assert found.one("SELECT x0 FROM evidence") == 0.5


def test_a_predicate_reads_nothing_but_the_dataset(tmp_path: Path):
    """A recipe's SQL cannot open other files."""
    (tmp_path / "secret.csv").write_text("a\n1\n")
    data = pool(str(tmp_path / "data"), {0: 0.5})
    with (
        gathered(data, [LOW], columns_read(data, [LOW]), []) as found,
        pytest.raises(ValueError, match=r"the rules low: .*disabled"),
    ):
        found.ask(f"SELECT * FROM read_csv('{tmp_path}/secret.csv')")


def test_a_killed_decision_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Parts that were written stay; the rest is written by the next run, and all is the same."""
    monkeypatch.setattr(evidence, "CHUNK_ROWS", 1)
    data = pool(str(tmp_path / "a"), {i: i / 32 for i in range(32)}, parts=4)
    write, done = Dataset.write, []

    def dies(self: Dataset, claim, part, rows, **more):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(part)
        write(self, claim, part, rows, **more)

    monkeypatch.setattr(Dataset, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        filter_pairs(data, [LOW])
    monkeypatch.setattr(Dataset, "write", write)
    stamps = {
        f: data.fs.modified(f) for f in data.fs.glob(f"{data.path}/decisions_quality/*.parquet")
    }
    assert stamps
    again = Dataset(data.root)
    filter_pairs(again, [LOW])
    assert all(data.fs.modified(f) == when for f, when in stamps.items())
    straight = pool(str(tmp_path / "b"), {i: i / 32 for i in range(32)}, parts=4)
    filter_pairs(straight, [LOW])
    for table in ("decisions_quality", "rules_failed"):
        assert whole(again, table) == whole(straight, table)
    n = query(again, "SELECT count(*) AS n FROM decisions_quality")["n"][0].as_py()
    assert n == 32


def test_a_dataset_elsewhere_is_decided_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On an object store files are read through fsspec, those of many parts by their row groups."""
    for compacted in (False, True):
        if compacted:
            monkeypatch.setattr(compaction, "ROWS", 2)
            monkeypatch.setattr(compaction, "LEAST_PARTS", 2)
        data = pool(
            f"memory://e-{tmp_path.name}-{compacted}", {i: i / 8 for i in range(8)}, parts=3
        )
        filter_pairs(data, [LOW])
        assert seen(data, LOW) == {uid(i): i / 8 for i in range(8)}
        kept = {r["uid"] for r in whole(data, "decisions_quality") if r["keep"]}
        assert kept == {uid(i) for i in range(2, 8)}
