"""Evaluation sets: the same items from a folder, a parquet and WebDataset shards."""

from __future__ import annotations

import io
import uuid

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.contamination.items import open_set
from tests.curate.contamination.sets import folder, tar

BODIES = {"b/2.png": b"two", "a.jpg": b"one", "b/3.JPG": b"three"}


def read(path) -> dict[str, tuple[bytes, tuple[str, ...]]]:
    items = list(open_set(str(path)).items())
    assert len({item.key for item in items}) == len(items)
    return {item.key: (item.image(), item.captions) for item in items}


def parquet(columns) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, row_group_size=2)
    return stream.getvalue()


def test_a_folder_gives_its_images_at_any_depth(tmp_path):
    """Keys are paths below the folder; hidden and other files are none; .txt has the captions."""
    more = {"a.txt": b"a cat\non a mat", "notes.md": b"-", ".x/4.png": b"-", "_y.png": b"-"}
    found = read(folder(tmp_path, BODIES | more))
    assert found == {
        "a.jpg": (b"one", ("a cat\non a mat", "a cat", "on a mat")),
        "b/2.png": (b"two", ()),
        "b/3.JPG": (b"three", ()),
    }


@pytest.mark.parametrize(
    "image",
    [
        pa.array([b"one", b"two", b"three", None]),
        pa.array([{"bytes": b, "path": "x"} for b in (b"one", b"two", b"three")] + [None]),
        pa.array(["a.jpg", "b/2.png", "b/3.JPG", None]),
        pa.array([{"bytes": None, "path": p} for p in ("a.jpg", "b/2.png", "b/3.JPG", None)]),
    ],
    ids=["bytes", "structs", "paths", "structs of paths"],
)
def test_a_parquet_gives_its_rows(tmp_path, image):
    """Keys are row numbers; captions are what columns of text or lists of it have."""
    folder(tmp_path, BODIES)
    captions = pa.array([["a cat", "a pet"], [], None, ["x"]])
    columns = {"image": image, "captions": captions, "Text_0": ["t", None, "", "u"]}
    (tmp_path / "set.parquet").write_bytes(parquet({**columns, "label": [1, 2, 3, 4]}))
    found = read(tmp_path / "set.parquet")
    assert found == {
        "0": (b"one", ("a cat", "a pet", "t")),
        "1": (b"two", ()),
        "2": (b"three", ()),
        "3": (b"", ("x", "u")),
    }


def test_several_parquets_name_their_file(tmp_path):
    """A folder of parquet files gives file and row; an odd column of bytes is the image's."""
    files = {
        "a.parquet": parquet({"n": [1], "photo": [b"one"]}),
        "b/c.parquet": parquet({"img": [b"two"]}),
    }
    found = read(folder(tmp_path, files))
    assert found == {"a.parquet#0": (b"one", ()), "b/c.parquet#0": (b"two", ())}


def test_shards_give_their_samples(tmp_path):
    """Keys are tar and sample, a repeated one is told apart; samples without an image are none."""
    first = {
        "0/1.jpg": b"one",
        "0/1.txt": b"a cat",
        "0/1.json": b'{"caption": "a pet", "n": 3, "url": "u"}',
        "2.json": b"{}",
        "3.png": b"two",
        "3.json": b"broken",
    }
    again = tar({"3.png": b"x", "4.png": b"y"})
    files = {"test/0.tar": tar(first), "1.tar": again, "classnames.txt": b"-", "x.parquet": b"-"}
    assert read(folder(tmp_path, files)) == {
        "test/0.tar/0/1": (b"one", ("a cat", "a pet")),
        "test/0.tar/3": (b"two", ()),
        "1.tar/3": (b"x", ()),
        "1.tar/4": (b"y", ()),
    }
    assert read(tmp_path / "1.tar") == {"1.tar/3": (b"x", ()), "1.tar/4": (b"y", ())}


@pytest.mark.parametrize(
    "files",
    [BODIES, {"s.parquet": parquet({"image": [b"one"]})}, {"s.tar": tar({"1.png": b"one"})}],
    ids=["folder", "parquet", "tar"],
)
def test_any_file_system_will_do(files, tmp_path):
    """A set under a URL is the set in a local folder, state included; a changed one differs."""
    url = f"memory://{uuid.uuid4().hex}"
    fs, base = fsspec.core.url_to_fs(url)
    for name, body in files.items():
        fs.pipe_file(f"{base}/{name}", body)
    local = folder(tmp_path, files)
    assert read(url) == read(local)
    state = open_set(url).state()
    assert state == open_set(local).state()
    fs.pipe_file(f"{base}/more.png", b"more")
    assert state != open_set(url).state()


def test_what_is_no_set_is_refused(tmp_path):
    """The error says what was found and what a set is."""
    with pytest.raises(ValueError, match="nothing; give a folder of images"):
        open_set(str(tmp_path / "lacks"))
    with pytest.raises(ValueError, match=r"but a\.csv"):
        open_set(folder(tmp_path / "other", {"a.csv": b"url"}))
    bad = folder(tmp_path / "bad", {"a.parquet": parquet({"url": ["http://h"], "n": [1]})})
    with pytest.raises(ValueError, match=r"no column of images, its columns are url \(string\)"):
        list(open_set(bad).items())
