"""storage: whole files or none, here and on object stores."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from curate import storage


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path: Path):
    """(file system, a folder that is not there yet)."""
    url = str(tmp_path / "set") if request.param == "local" else f"memory://{uuid.uuid4().hex}/set"
    return fsspec.core.url_to_fs(url)


def test_a_written_file_is_there_when_the_block_ends(place):
    """Before that nobody sees it, and afterwards nothing lies beside it."""
    fs, folder = place
    with storage.writing(fs, f"{folder}/deep/a") as stream:
        stream.write(b"one ")
        stream.write(b"two")
        assert not fs.exists(f"{folder}/deep/a")
    assert fs.cat_file(f"{folder}/deep/a") == b"one two"
    assert storage.names(fs, f"{folder}/deep") == ["a"]


def test_a_failed_write_leaves_what_was_there(place):
    """An error in the block keeps the older file as it is, and leaves no trace of the new one."""
    fs, folder = place
    storage.replace(fs, f"{folder}/a", b"old")

    def broken(name: str) -> None:
        with storage.writing(fs, f"{folder}/{name}") as stream:
            stream.write(b"half of it")
            raise KeyboardInterrupt

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            broken(name)
    assert storage.names(fs, folder) == ["a"]
    assert fs.cat_file(f"{folder}/a") == b"old"


def test_replace_takes_the_place_of_an_older_file(place):
    """Longer or shorter, the new content is all there is."""
    fs, folder = place
    for content in (b"long content", b"", b"new"):
        storage.replace(fs, f"{folder}/a", content)
        assert fs.cat_file(f"{folder}/a") == content


def test_create_is_for_the_first_one_only(place):
    """Of two writers one learns that it has lost, and the winner's file stays."""
    fs, folder = place
    assert storage.create(fs, f"{folder}/1.json", b"first") is True
    assert storage.create(fs, f"{folder}/1.json", b"second") is False
    assert fs.cat_file(f"{folder}/1.json") == b"first"
    assert storage.names(fs, folder) == ["1.json"]


def test_names_of_a_folder(place):
    """Sorted, without the folder; none where there is no folder."""
    fs, folder = place
    assert storage.names(fs, folder) == []
    for name in "cab":
        storage.replace(fs, f"{folder}/{name}", b"")
    assert storage.names(fs, folder) == ["a", "b", "c"]


def test_a_folder_is_done_when_its_mark_is_there(place):
    """Folders within it are kept; an interrupted one has no mark, and is filled again."""
    fs, folder = place

    def half(scratch: str) -> None:
        Path(scratch, "a").write_bytes(b"half")
        raise OSError("disk full")

    def whole(scratch: str) -> None:
        assert list(Path(scratch).iterdir()) == []
        Path(scratch, "a").write_bytes(b"whole")
        Path(scratch, "sub").mkdir()
        Path(scratch, "sub", "b").write_bytes(b"inner")

    with pytest.raises(OSError, match="disk full"):
        storage.fill_folder(fs, folder, half)
    assert storage.names(fs, folder) == []
    storage.replace(fs, f"{folder}/a", b"of a run that was killed while storing")
    storage.fill_folder(fs, folder, whole)
    assert storage.names(fs, folder) == ["_done", "a", "sub"]
    assert fs.cat_file(f"{folder}/a") == b"whole"
    assert fs.cat_file(f"{folder}/sub/b") == b"inner"


def test_the_mark_comes_last(place, monkeypatch):
    """Killed while storing, the folder has files but no mark."""
    fs, folder = place
    writing, stored = storage.writing, []

    def dies_at_the_second(fs, path):
        stored.append(path)
        if len(stored) == 2:
            raise KeyboardInterrupt
        return writing(fs, path)

    def make(scratch: str) -> None:
        for name in ("a", "z"):
            Path(scratch, name).write_bytes(name.encode())

    monkeypatch.setattr(storage, "writing", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        storage.fill_folder(fs, folder, make)
    assert storage.names(fs, folder) == ["a"]


def test_a_folder_as_a_local_one(place):
    """Local folders are themselves; others are copied for as long as the block lasts."""
    fs, folder = place
    storage.replace(fs, f"{folder}/a", b"content")
    storage.replace(fs, f"{folder}/sub/b", b"inner")
    with storage.as_local(fs, folder) as local:
        assert (local / "a").read_bytes() == b"content"
        assert (local / "sub" / "b").read_bytes() == b"inner"
        assert (str(local) == folder) == storage.is_local(fs)
    assert local.exists() == storage.is_local(fs)
