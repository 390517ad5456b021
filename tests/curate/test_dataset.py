"""Parts, generations, claims and versions."""

from __future__ import annotations

import math
import pickle
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from curate import storage
from curate.claims import Claim, digest
from curate.dataset import Dataset, existing
from schemas.configs import DownloadConfig, Rules
from schemas.tables import SAMPLES


def decisions(*uids: str, reason: str | None = None) -> pa.Table:
    return pa.table(
        {
            "uid": list(uids),
            "keep": [reason is None] * len(uids),
            "reason": pa.array([reason] * len(uids), pa.string()),
            "duplicate_of": pa.nulls(len(uids), pa.string()),
        }
    )


def first(data: Dataset, parts: int = 2) -> Claim:
    """A root table with some parts, published; decisions have the shortest schema."""
    claim = data.claim("decisions_quality", Rules(), artifact="batch", append=True)
    for part in range(parts):
        data.write(claim, part, decisions(f"{part}"))
    data.publish(claim)
    return claim


def derived(data: Dataset, **more: object) -> Claim:
    return data.claim("decisions_dedup", Rules(), of=["decisions_quality"], **more)  # type: ignore[arg-type]


@pytest.fixture(params=["local", "memory"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    return Dataset(
        str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}-{id(request)}"
    )


def test_a_written_part_counts_only_once_it_is_published(data: Dataset):
    """Readers go through the manifest: a part that no version names is invisible."""
    claim = data.claim("decisions_quality", Rules(), artifact="b", append=True)
    data.write(claim, 0, decisions("a"))
    assert Dataset(data.root).tables() == []
    data.publish(claim)
    assert Dataset(data.root).read("decisions_quality", 0)["uid"].to_pylist() == ["a"]


def test_missing_lists_what_is_not_there_and_nothing_once_it_is(data: Dataset):
    """A run that was killed before publishing finds its whole parts again."""
    first(data, 3)
    claim = derived(data)
    assert data.missing(claim) == [0, 1, 2]
    data.write(claim, 1, decisions("1"))
    again = Dataset(data.root)
    assert again.missing(derived(again)) == [0, 2]


def test_a_part_of_an_older_generation_is_missing(data: Dataset):
    """When an input part was rewritten, what was made of it is made anew, and only that."""
    root = first(data)
    claim = derived(data)
    for part in (0, 1):
        data.write(claim, part, decisions(f"{part}"))
    data.publish(claim)
    data.write(root, 1, decisions("1", "2"), again=True)
    data.publish(root)
    assert data.missing(claim) == [1]
    data.write(claim, 1, decisions("1", "2"))
    data.publish(claim)
    assert data.parts("decisions_dedup")[1].file == "00000001.g1.parquet"
    assert data.parts("decisions_dedup")[0].file == "00000000.g0.parquet"


def test_a_generation_that_counts_as_an_older_one_leaves_what_was_made_of_that(data: Dataset):
    """Notes say so; they are published, read back and no part of what a part is made of."""
    root = first(data)
    claim = derived(data)
    for part in (0, 1):
        data.write(claim, part, decisions(f"{part}"))
    data.publish(claim)
    state = data.fingerprint(["decisions_quality"])
    data.write(root, 1, decisions("1", reason="again"), again=True, notes={"content": 0})
    data.publish(root)
    again = Dataset(data.root)
    entry = again.parts("decisions_quality")[1]
    assert (entry.generation, entry.content, dict(entry.notes)) == (1, 0, {"content": 0})
    assert again.read("decisions_quality", 1)["reason"].to_pylist() == ["again"]
    assert again.missing(derived(again)) == []
    assert again.fingerprint(["decisions_quality"]) == state
    again.write(root, 1, decisions("1", "2"), again=True)
    again.publish(root)
    assert again.missing(derived(again)) == [1]


def test_another_artifact_makes_every_part_missing(data: Dataset):
    """What a pool-level unit fitted belongs to the claim: a refit recomputes."""
    first(data)
    claim = derived(data, artifact="one")
    for part in (0, 1):
        data.write(claim, part, decisions(f"{part}"))
    data.publish(claim)
    assert data.missing(derived(data, artifact="one")) == []
    assert data.missing(derived(data, artifact="two")) == [0, 1]


def test_another_config_is_refused_and_named(data: Dataset):
    """The error says which field differs, from what to what, and how to start anew."""
    data.claim("samples", DownloadConfig(image_size=999))  # no part came of it: it binds nobody
    claim = data.claim("samples", DownloadConfig(), artifact="x")
    data.write(claim, 0, SAMPLES.empty_table())
    wanted = r"image_size: 'its default' -> 128.*curate drop .* samples"
    with pytest.raises(ValueError, match=wanted):
        data.claim("samples", DownloadConfig(image_size=128))
    data.claim("samples", DownloadConfig(concurrency=3))


def test_nan_is_stored_as_null(data: Dataset):
    """What is no number is unknown, in every table, whatever wrote it."""
    claim = data.claim("scores_x", Rules(), artifact="x")
    values = pa.array([0.0, math.nan, None], pa.float32())
    data.write(claim, 0, pa.table({"uid": ["a", "b", "c"], "s": values}))
    data.publish(claim)
    assert data.read("scores_x", 0)["s"].to_pylist() == [0.0, None, None]


def test_a_revisable_table_takes_another_config_as_a_new_generation(data: Dataset):
    """Decisions cost seconds: a changed rule makes new parts instead of an error."""
    first(data, 1)
    one = Rules.model_validate({"rules": [{"name": "a", "value": "x", "drop_below": 0.1}]})
    two = Rules.model_validate({"rules": [{"name": "a", "value": "x", "drop_below": 0.2}]})
    for rules, generation in ((one, 0), (two, 1)):
        claim = data.claim("decisions_dedup", rules, of=["decisions_quality"], revisable=True)
        assert data.missing(claim) == [0]
        data.write(claim, 0, decisions("0"))
        data.publish(claim)
        assert data.parts("decisions_dedup")[0].generation == generation


def test_publishing_nothing_new_makes_no_version(data: Dataset):
    """A rerun of what is done leaves the dataset as it is."""
    claim = first(data)
    before = data.at
    assert data.publish(claim) == before == Dataset(data.root).at


def test_two_writers_cannot_publish_the_same_version(data: Dataset):
    """The second one learns it; the first one's manifest stays."""
    first(data)
    other = Dataset(data.root)
    claim = derived(data)
    data.write(claim, 0, decisions("0"))
    data.publish(claim)
    late = other.claim("decisions_select", Rules(), of=["decisions_quality"])
    other.write(late, 0, decisions("0"))
    with pytest.raises(ValueError, match="published by another run"):
        other.publish(late)
    assert "decisions_select" not in Dataset(data.root).tables()


def test_old_versions_stay_readable(data: Dataset):
    """A version is a set of files that nobody changes."""
    root = first(data, 1)
    data.write(root, 0, decisions("0", "9"), again=True)
    data.publish(root)
    assert Dataset(data.root, version=1).rows("decisions_quality") == 1
    assert Dataset(data.root, version=2).rows("decisions_quality") == 2
    with pytest.raises(ValueError, match=r"no version 7; it has \[1, 2\]"):
        Dataset(data.root, version=7)


def test_appended_batches_stay_beside_each_other(data: Dataset):
    """A second batch adds parts and keeps the first one's."""
    first(data)
    claim = data.claim("decisions_quality", Rules(), artifact="second", append=True)
    data.write(claim, 2, decisions("2"))
    data.publish(claim)
    assert sorted(data.parts("decisions_quality")) == [0, 1, 2]
    assert data.parts("decisions_quality")[0].inputs["artifact"] == "batch"


def test_a_dropped_table_is_gone_and_made_anew_beside_the_old_parts(data: Dataset):
    """Older versions keep what they name; the same config computes again; readers notice."""
    root = first(data, 1)
    claim = derived(data)
    data.write(claim, 0, decisions("0"))
    data.publish(claim)
    below = data.claim("decisions_select", Rules(), of=["decisions_dedup"])
    data.write(below, 0, decisions("0"))
    version = data.publish(below)
    data.drop("decisions_dedup")
    assert data.tables() == ["decisions_quality", "decisions_select"]
    again = derived(data)
    assert data.missing(again) == [0]
    data.write(again, 0, decisions("other"))
    data.publish(again)
    assert data.read("decisions_dedup", 0)["uid"].to_pylist() == ["other"]
    assert data.missing(below) == [0]
    old = Dataset(data.root, version=version)
    assert old.read("decisions_dedup", 0)["uid"].to_pylist() == ["0"]
    assert data.missing(root, [0]) == []
    with pytest.raises(ValueError, match="no table 'nope'; it has decisions_dedup"):
        data.drop("nope")
    with pytest.raises(ValueError, match="urls is what everything else is made of"):
        data.drop("urls")


def test_a_part_that_is_there_is_not_written_twice(data: Dataset):
    """A worker that died between writing and saying so has done its part."""
    root = first(data, 1)
    data.write(root, 0, decisions("0"))
    assert storage.names(data.fs, f"{data.path}/decisions_quality")[:1] == ["00000000.g0.parquet"]
    assert data.next_generation("decisions_quality", 0) == 1


def test_a_table_that_may_lack_a_part_does_not_hold_others_up(data: Dataset):
    """`also` records the generation where there is one, and its coming makes the part missing."""
    root = first(data, 1)
    claim = derived(data, also=["decisions_select"])
    data.write(claim, 0, decisions("0"))
    data.publish(claim)
    assert data.missing(claim) == []
    other = data.claim("decisions_select", Rules(), artifact="x", append=True)
    data.write(other, 0, decisions("0"))
    data.publish(other)
    assert data.missing(claim) == [0]
    assert data.missing(root, [0]) == []


def test_a_version_knows_what_its_tables_were_made_with(data: Dataset):
    """config_of follows the parts, not the last claim; retired tables are gone but for history."""
    first(data, 1)
    one = Rules.model_validate({"rules": [{"name": "a", "value": "x", "drop_below": 0.1}]})
    claim = data.claim("decisions_dedup", one, of=["decisions_quality"], revisable=True)
    data.write(claim, 0, decisions("0"))
    data.publish(claim)
    data.claim("decisions_dedup", Rules(), of=["decisions_quality"], revisable=True)
    assert data.config_of("decisions_dedup")["rules"][0]["name"] == "a"
    version = data.at
    data.retire("decisions_dedup")
    assert "decisions_dedup" not in data.tables()
    assert "decisions_dedup" in Dataset(data.root, version=version).tables()


def test_a_dataset_travels_to_workers(data: Dataset):
    """Pickled and back it reads the same version."""
    first(data)
    there = pickle.loads(pickle.dumps(data))
    assert there.read("decisions_quality", 1)["uid"].to_pylist() == ["1"]


def test_columns_are_cast_to_the_contract(data: Dataset):
    """What a stage forgets is an error, what it orders otherwise is put in order."""
    claim = data.claim("decisions_quality", Rules(), artifact="b", append=True)
    rows = decisions("a").select(["reason", "uid", "keep"])
    data.write(claim, 0, rows)
    data.publish(claim)
    assert data.read("decisions_quality", 0).column_names == ["uid", "keep", "reason"]
    with pytest.raises(KeyError):
        data.write(claim, 1, rows.drop_columns(["keep"]))


def test_equal_rows_give_equal_bytes(tmp_path: Path):
    """Neither time nor place is in a part or a manifest."""
    files = []
    for name in ("a", "b"):
        data = Dataset(str(tmp_path / name))
        first(data)
        files.append(
            {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        )
    assert files[0] == files[1]


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    """Written beside, renamed last: an error or a kill in between leaves no part."""
    data = Dataset(str(tmp_path))
    with suppress(RuntimeError), data.new_tar(0) as (_, stream):
        stream.write(b"half")
        raise RuntimeError
    assert storage.names(data.fs, str(tmp_path / "images")) == []


def test_an_artifact_is_made_once(data: Dataset):
    """The folder is filled by the first call; a half-filled one without its mark is made anew."""
    calls = []

    def make(folder: str) -> None:
        calls.append(folder)
        (Path(folder) / "model.bin").write_bytes(b"x")

    for _ in range(2):
        path = data.artifact("unit", "key", make)
    assert len(calls) == 1
    assert data.fs.cat_file(f"{path}/model.bin") == b"x"
    data.fs.rm(f"{path}/_done")
    data.artifact("unit", "key", make)
    assert len(calls) == 2


def test_the_fingerprint_follows_the_parts(data: Dataset):
    """It changes when a part of the named tables changes, and only then."""
    root = first(data)
    before = data.fingerprint(["decisions_quality"])
    derived(data)
    assert data.fingerprint(["decisions_quality"]) == before
    data.write(root, 0, decisions("0", "1"), again=True)
    data.publish(root)
    assert data.fingerprint(["decisions_quality"]) != before


def test_a_folder_without_a_dataset_is_named(tmp_path: Path):
    """The commands that read say what to run first."""
    with pytest.raises(ValueError, match="holds no dataset: `curate run`"):
        existing(str(tmp_path))


def test_digest_ignores_the_order_of_names():
    """Equal values give equal hashes."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
