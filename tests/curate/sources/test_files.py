"""Which files a path, folder, glob or list stands for."""

from __future__ import annotations

import pytest

from curate.sources.files import find


def names(paths: str | list[str], wanted: str = "auto") -> list[tuple[str, str]]:
    return [(f.name, f.format) for f in find(paths, wanted)]


def test_a_folder_is_searched_below_and_without_hidden_names(tmp_path):
    """Known files of all folders below, but none whose path has a part that begins with . or _."""
    for name in (
        "b.csv",
        "a/x.parquet",
        "a/_tmp/y.parquet",
        ".git/z.csv",
        "a/readme.md",
        "c.tsv.gz",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(str(tmp_path)) == [("x.parquet", "parquet"), ("b.csv", "csv"), ("c.tsv.gz", "tsv")]
    assert names(str(tmp_path), "csv") == [("b.csv", "csv")]


def test_each_file_counts_once(tmp_path):
    """A file that several paths stand for is one file."""
    (tmp_path / "a.csv").write_bytes(b"x")
    assert names([str(tmp_path), f"{tmp_path}/*.csv", str(tmp_path / "a.csv")]) == [
        ("a.csv", "csv")
    ]


def test_tars_make_a_folder_a_webdataset(tmp_path):
    """The parquet files beside tars are sidecars, not lists."""
    for name in ("00000.tar", "00000.parquet", "00000_stats.json"):
        (tmp_path / name).write_bytes(b"x")
    assert names(str(tmp_path)) == [("00000.tar", "webdataset")]
    assert names(str(tmp_path), "parquet") == [("00000.parquet", "parquet")]


def test_a_format_is_told_or_named(tmp_path):
    """A name that does not tell its format needs `format`."""
    (tmp_path / "urls.txt").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"urls\.txt: its name does not tell its format; set `format`"
    ):
        find(str(tmp_path / "urls.txt"), "auto")
    assert names(str(tmp_path / "urls.txt"), "csv") == [("urls.txt", "csv")]


def test_paths_without_files_are_named(tmp_path):
    """The error says which path stands for nothing, and what a folder holds instead."""
    with pytest.raises(ValueError, match=r"no file matches '.*/nothing\.parquet'"):
        find(f"{tmp_path}/nothing.parquet", "auto")
    with pytest.raises(ValueError, match=r"no file matches '.*\*\.csv'"):
        find(f"{tmp_path}/*.csv", "auto")
    with pytest.raises(ValueError, match=r"folder '.*' has no file to ingest .*; it holds nothing"):
        find(str(tmp_path), "auto")
    (tmp_path / "notes.md").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has no file to ingest \(\.csv\); it holds notes\.md"):
        find(str(tmp_path), "csv")
    with pytest.raises(ValueError, match="list of paths to ingest is empty"):
        find([], "auto")
