"""Folders of tars: where each image lies, and which URL and caption it has."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import sources
from curate.dataset import Dataset
from curate.ingest import ingest
from curate.sources.files import find
from schemas.configs import IngestConfig


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


def read(path: Path) -> list[dict]:
    config = IngestConfig(path=str(path))
    files = find(config.path, config.format)
    return [row for f in files for r in sources.read(f, config) for row in r.table.to_pylist()]


def image(row: dict) -> bytes:
    return Path(row["tar"]).read_bytes()[row["tar_offset"] :][: row["tar_size"]]


def test_samples_tell_their_url_and_caption(tmp_path):
    """JSON first, then .txt; a sample that names no URL gets one made of tar and key."""
    members = {
        "a/001.jpg": b"first",
        "a/001.json": json.dumps(
            {"url": "http://a/1", "caption": "one", "uid": "x", "n": 1}
        ).encode(),
        "a/001.txt": b"other",
        "002.txt": "zwei \u00e9".encode(),
        "002.PNG": b"second!",
        "003.json": b'{"image_url": "http://a/3"}',
        "004.txt": b"neither image nor url",
        "__meta__.json": b"{}",
        ("long/" * 40) + "005.webp": b"third",
    }
    tar(tmp_path / "00000.tar", members)
    rows = read(tmp_path)
    key = "long/" * 40 + "005"
    assert [r["url"] for r in rows] == [
        "http://a/1",
        "wds://00000.tar#002",
        "http://a/3",
        None,
        f"wds://00000.tar#{key}",
    ]
    assert [r["caption"] for r in rows[:3]] == ["one", "zwei é", None]
    assert [image(r) for r in rows if r["tar"]] == [b"first", b"second!", b"third"]
    assert [bool(r["tar"]) for r in rows] == [True, True, False, False, True]
    assert (rows[0]["source_uid"], rows[0]["in_n"]) == ("x", "1")


def test_a_folder_of_img2dataset_is_taken_in_whole(tmp_path, monkeypatch):
    """Of img2dataset's own shards, successes point to their bytes and failures have none."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    from img2dataset.writer import WebDatasetSampleWriter

    schema = pa.schema(
        [("caption", "string"), ("url", "string"), ("key", "string"), ("status", "string")]
    )
    out = tmp_path / "shards"
    out.mkdir()
    writer = WebDatasetSampleWriter(0, str(out), True, 5, schema, "jpg")
    for i, status in enumerate(("success", "failed_to_download", "success")):
        meta = {"caption": f"c{i}", "url": f"http://a/{i}", "key": f"{i:09d}", "status": status}
        writer.write(
            b"bytes %d" % i if status == "success" else None, meta["key"], meta["caption"], meta
        )
    writer.close()
    (out / "00000_stats.json").write_text("{}")
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=str(out)))
    rows = {r["url"]: r for r in data.read("urls", 0).to_pylist()}
    assert sorted(rows) == [f"http://a/{i}" for i in range(3)]
    assert image(rows["http://a/0"]) == b"bytes 0"
    assert image(rows["http://a/2"]) == b"bytes 2"
    assert rows["http://a/1"]["tar"] is None
    assert [rows[f"http://a/{i}"]["caption"] for i in range(3)] == ["c0", "c1", "c2"]
    assert rows["http://a/1"]["in_status"] == "failed_to_download"


def test_a_pair_at_hand_wins_over_the_same_pair_in_a_list(tmp_path):
    """Of a pair that is in a tar and in a list of one batch, the row with the image stays."""
    tar(tmp_path / "0.tar", {"1.jpg": b"x", "1.json": b'{"url": "http://a/1", "caption": "c"}'})
    (tmp_path / "list.csv").write_text("url,caption\nhttp://a/1,c\n")
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=[str(tmp_path / "list.csv"), str(tmp_path / "0.tar")]))
    assert data.read("urls", 0)["tar"].to_pylist() == [str(tmp_path / "0.tar")]
    assert data.read("sightings", 0)["n"].to_pylist() == [2]


def test_a_tar_cut_short_is_named(tmp_path):
    """A shard that was not finished is an error, not fewer rows."""
    tar(tmp_path / "a.tar", {"1.jpg": b"x" * 5000, "2.jpg": b"y" * 5000})
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:8000])
    with pytest.raises(
        ValueError, match=r"a\.tar: cannot be read as webdataset: unexpected end of data"
    ):
        read(tmp_path / "a.tar")


def test_a_foreign_sidecar_is_named(tmp_path):
    """A parquet that does not know a sample of its tar is refused."""
    tar(tmp_path / "a.tar", {"1.jpg": b"x"})
    pq.write_table(pa.table({"key": ["2"], "url": ["u"], "caption": ["c"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.tar: sample '1' is not in the parquet beside it"):
        read(tmp_path / "a.tar")
