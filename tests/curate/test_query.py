"""SQL over the dataset: everything in it, nothing outside it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.query import query
from schemas.configs import IngestConfig, Rule, TextStatsScorer
from schemas.tables import schema_of
from tests.scored import pool, scored, uid
from tests.tiny import add_table


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return pool(str(tmp_path / "set"), {0: 0.1, 1: 0.9, 2: 0.5}, parts=2, failed=[2])


def test_each_table_is_a_view_and_pairs_joins_them(data: Dataset):
    """One row per uid, columns named <table>__<column>."""
    rows = query(data, "SELECT * FROM pairs ORDER BY uid").to_pylist()
    assert {r["uid"] for r in rows} == {uid(0), uid(1), uid(2)}
    by_uid = {r["uid"]: r for r in rows}
    assert by_uid[uid(1)]["scores_s__clip_score"] == pytest.approx(0.9)
    assert by_uid[uid(2)]["scores_s__clip_score"] is None
    assert by_uid[uid(2)]["samples__status"] == "failed_to_download"
    assert by_uid[uid(0)]["urls__caption"] == "caption 0"


def test_pairs_has_neither_lists_nor_bytes(data: Dataset):
    """Embeddings and thumbnails are for their own tables' readers."""
    assert "thumbnail" in query(data, "SELECT * FROM samples").column_names
    kinds = query(data, "SELECT * FROM pairs LIMIT 0").schema.types
    assert not any(pa.types.is_nested(k) or pa.types.is_binary(k) for k in kinds)


def test_decisions_account_for_every_pair(data: Dataset):
    """A stage that has not run yet drops nothing; one that has gives its reason."""
    sql = "SELECT reason, count(*) AS n FROM decisions GROUP BY 1 ORDER BY 1"
    assert query(data, sql).to_pylist() == [
        {"reason": "failed_to_download", "n": 1},
        {"reason": None, "n": 2},
    ]
    filter_pairs(data, [Rule(name="low", value="scores_s__clip_score", drop_below=0.5)])
    assert {r["reason"]: r["n"] for r in query(data, sql).to_pylist()} == {
        "failed_to_download": 1,
        "low": 1,
        None: 1,
    }


def test_a_pair_that_no_stage_has_decided_yet_is_not_kept(data: Dataset):
    """What a new batch brings is undecided until the rules have seen it: neither in nor out."""
    filter_pairs(data, [])
    urls = data.claim("urls", IngestConfig(path="x"), artifact="new", append=True, revisable=True)
    data.write(urls, 9, data.read("urls", 1).slice(0, 1).set_column(0, "uid", [["f" * 32]]))
    data.publish(urls)
    new = query(data, f"SELECT keep, reason FROM decisions WHERE uid = '{'f' * 32}'")
    assert new.to_pylist() == [{"keep": None, "reason": "not downloaded yet"}]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY urls TO '{inside}/x.csv'",
        "COPY urls TO '{outside}/x.csv'",
        "ATTACH '{outside}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW urls",
        "SET memory_limit = '1GB'",
        "PRAGMA database_list",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS uid) TO '{inside}/urls/00000000.g0.parquet'",
        "EXPLAIN SELECT 1",
        "EXPORT DATABASE '{outside}'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('{outside}/secret.csv')",
        "SELECT * FROM '{outside}/secret.csv'",
        "SELECT * FROM read_text('{outside}/secret.csv')",
        "SELECT * FROM glob('{outside}/*')",
        "SELECT * FROM read_text('{inside}/../secret.csv')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
        "",
    ],
)
def test_a_query_reads_the_dataset_and_nothing_else(data: Dataset, tmp_path: Path, sql: str):
    """Writing, attaching, installing, copying and reading elsewhere are refused in one line."""
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"^(?!.*\n).+"):
        query(data, sql.format(inside=data.path, outside=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_describe_show_and_with_are_reading(data: Dataset):
    """What only reads is allowed, whatever its first word."""
    for sql in ("DESCRIBE pairs", "SHOW TABLES", "WITH a AS (SELECT 1) FROM a"):
        assert query(data, sql).num_rows > 0


def test_an_older_version_can_be_asked(data: Dataset):
    """--version reads what a manifest of then names."""
    first = Dataset(data.root, version=1)
    assert query(first, "SELECT count(*) AS n FROM urls")["n"][0].as_py() == 3
    with pytest.raises(ValueError, match="samples"):
        query(first, "SELECT * FROM samples")


def test_a_dataset_in_memory_is_asked_the_same_way():
    """Roots are any fsspec URL."""
    data = pool("memory://query-test", {0: 0.5})
    assert query(data, "SELECT count(*) AS n FROM pairs")["n"][0].as_py() == 1


def test_scores_of_generated_captions_join_their_view_but_not_pairs(data: Dataset):
    """scores_s@hf shows as rows of scores_s by caption_id; pairs stays one row a pair."""
    claim = data.claim("scores_s@hf", TextStatsScorer(name="s"), of=["urls", "samples"])
    row = {"uid": uid(0), "caption_id": "f" * 32, "clip_score": 0.7}
    for part in data.parts("samples"):
        data.write(claim, part, scored([row] if part == 0 else []))
    data.publish(claim)
    assert query(data, f"SELECT * FROM scores_s WHERE uid = '{uid(0)}'").num_rows == 2
    assert query(data, "SELECT * FROM pairs").num_rows == 3


def test_every_stage_of_deciding_has_its_turn(data: Dataset):
    """The first failing stage on the way gives the reason: quality, then dedup, then select."""
    filter_pairs(data, [])
    for stage, dropped in (("select", 0), ("dedup", 1)):
        name = f"decisions_{stage}"
        rows = {
            part: pa.Table.from_pylist(
                [
                    {"uid": u, "keep": u != uid(dropped), "reason": stage}
                    for u in data.read("samples", part)["uid"].to_pylist()
                ],
                schema=schema_of(name),
            )
            for part in data.parts("samples")
        }
        add_table(data, name, rows, ["samples"])
    found = query(data, "SELECT uid, reason FROM decisions WHERE NOT keep").to_pylist()
    reasons = {r["uid"]: r["reason"] for r in found}
    assert reasons == {uid(0): "select", uid(1): "dedup", uid(2): "failed_to_download"}
