"""Ingest: what ends up in urls, sightings and scores_datacomp, whatever the list looked like."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.ingest import ingest
from curate.placement import part_of
from curate.spill import places
from schemas.configs import IngestConfig
from schemas.tables import clean, draw, uid_of
from tests.lists import pairs, state, table, write


def test_a_pair_is_its_url_and_caption_and_brings_its_columns(tmp_path):
    """Each row becomes one pair with its content's uid, its source_uid and its other columns."""
    rows = [{"uid": "x7", "url": "http://a.example/1", "caption": "one", "width": 3, "tags": ["a"]}]
    data = Dataset(str(tmp_path / "data"))
    name = ingest(data, IngestConfig(path=write(tmp_path / "my list.parquet", rows), source="me"))
    assert name.startswith("my-list-")
    assert table(data, "urls") == [
        {
            "uid": uid_of("http://a.example/1", "one"),
            "url": "http://a.example/1",
            "caption": "one",
            "source_uid": "x7",
            **dict.fromkeys(("tar", "tar_offset", "tar_size")),
            "in_tags": ["a"],
            "in_width": 3,
        }
    ]
    assert table(data, "sightings") == [
        {"uid": uid_of("http://a.example/1", "one"), "batch": name, "source": "me", "n": 1}
    ]


def test_parts_are_near_their_size_sorted_and_placed_by_url(tmp_path):
    """Parts hold about part_rows rows, sorted by uid, and a URL's rows lie in one part."""
    rows = pairs(600) + [dict(r, caption="other") for r in pairs(600)]
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=write(tmp_path / "a.parquet", rows), part_rows=200))
    assert sorted(data.parts("urls")) == list(range(6))
    for part, entry in data.parts("urls").items():
        read = data.read("urls", part)
        assert 120 < entry.rows < 280
        assert read["uid"].to_pylist() == sorted(read["uid"].to_pylist())
        place = places(read["url"].combine_chunks())
        assert set(part_of(place, 6).tolist()) == {part}


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_neither_order_nor_split_of_the_list_changes_a_row(tmp_path_factory, data):
    """Any order, split into files and format of the same rows gives the same tables."""
    rows = [
        dict(r, width=r["width"] % 7, note=str(i % 3))
        for i, r in enumerate([*pairs(40), *pairs(9)])
    ]
    rows += [
        {"url": "http://b.example/x", "caption": "c", "width": w, "note": "n"} for w in (3, 1, 2)
    ]
    folder = tmp_path_factory.mktemp("lists")
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows) - 1))
    for name, some in (("a", shuffled[:cut]), ("b", shuffled[cut:])):
        if some:
            write(folder / f"{name}.parquet", some)
    (folder / "one").mkdir()
    write(folder / "one" / "list.parquet", rows)
    roots = [Dataset(str(folder / f"data{i}")) for i in range(2)]
    for root, path in zip(roots, (f"{folder}/*.parquet", f"{folder}/one"), strict=True):
        ingest(root, IngestConfig(path=path, batch="b", part_rows=10))
    assert state(roots[0]) == state(roots[1])
    assert (
        next(r for r in table(roots[0], "urls") if r["url"] == "http://b.example/x")["in_width"]
        == 1
    )


def test_a_sample_is_the_same_urls_in_every_list(tmp_path):
    """`sample` keeps exactly the URLs whose draw is below it."""
    path = write(tmp_path / "a.parquet", pairs(400)[::-1])
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=path, sample=0.25, seed=7))
    expected = {r["url"] for r in pairs(400) if draw(7, r["url"]) < 0.25}
    assert {r["url"] for r in table(data, "urls")} == expected
    assert 60 < len(expected) < 140


def test_a_sample_that_holds_nothing_is_a_batch_without_rows(tmp_path, caplog):
    """An empty sample is published, so that it is not read again, with a warning."""
    data = Dataset(str(tmp_path / "data"))
    config = IngestConfig(path=write(tmp_path / "a.parquet", pairs(5)), sample=0.0)
    name = ingest(data, config)
    assert "holds none of the 5 rows" in caplog.text
    assert data.rows("sightings") == 0
    assert ingest(data, config) == name


def test_rows_without_a_url_are_skipped_and_counted(tmp_path, caplog):
    """Null, empty and blank URLs are no pairs; the log says how many there were."""
    rows = [*pairs(3), *({"url": u, "caption": "c", "width": 0} for u in (None, "", " \t"))]
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=write(tmp_path / "a.parquet", rows)))
    assert data.rows("urls") == 3
    assert "3 of 6 rows" in caplog.text


def test_hostile_text_keeps_its_identity(tmp_path):
    """Newlines, NUL, emoji, surrogates and broken UTF-8 are stored clean, under uid_of's uid."""
    lone = "a \ud83d b"
    raw = [
        b"line\nbreak",
        b"nul\0nul",
        "😀 \u202e".encode(),
        lone.encode("utf-8", "surrogatepass"),
        b"\xff\xfe",
    ]
    url = pa.array([f"http://a.example/{i}" for i in range(5)])
    rows = pa.table({"url": url, "caption": pa.array(raw).view(pa.string())})
    pq.write_table(rows, tmp_path / "a.parquet")
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=str(tmp_path / "a.parquet")))
    found = {r["url"][-1]: r for r in table(data, "urls")}
    captions = ["line\nbreak", "nul\0nul", "😀 \u202e", clean(lone), "\ufffd\ufffd"]
    assert [found[str(i)]["caption"] for i in range(5)] == captions
    assert all(r["uid"] == uid_of(r["url"], r["caption"]) for r in found.values())
    assert found["3"]["uid"] == uid_of("http://a.example/3", lone)


def test_no_caption_is_an_empty_one(tmp_path):
    """A null caption, an empty one and a list without captions give the same pair."""
    rows = [{"url": "http://a.example/1", "caption": c} for c in (None, "")]
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=write(tmp_path / "a.parquet", rows)))
    ingest(data, IngestConfig(path=write(tmp_path / "b.parquet", [{"url": "http://a.example/1"}])))
    assert [r["caption"] for r in table(data, "urls")] == [""]


def test_files_of_a_batch_may_have_other_columns(tmp_path):
    """Columns of some files are null in the others' rows; number types widen."""
    write(tmp_path / "a.parquet", [{"url": "http://a.example/1", "w": 1}])
    write(tmp_path / "b.parquet", [{"url": "http://a.example/2", "w": 0.5, "h": 2}])
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=[str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]))
    found = {r["url"][-1]: (r["in_w"], r["in_h"]) for r in table(data, "urls")}
    assert found == {"1": (1.0, None), "2": (0.5, 2)}


def test_columns_that_cannot_be_joined_are_refused(tmp_path):
    """A column that is text in one file and a list in another is an error that names it."""
    write(tmp_path / "a.parquet", [{"url": "http://a.example/1", "w": "x"}])
    write(tmp_path / "b.parquet", [{"url": "http://a.example/2", "w": [1]}])
    data = Dataset(str(tmp_path / "data"))
    with pytest.raises(ValueError, match=r"b\.parquet: its columns do not fit.*in_w"):
        ingest(data, IngestConfig(path=f"{tmp_path}/*.parquet"))


def test_an_empty_list_is_an_error(tmp_path):
    """A list without rows is refused, naming the file."""
    pq.write_table(pa.table({"url": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"the list is empty: no row in .*a\.parquet"):
        ingest(Dataset(str(tmp_path / "data")), IngestConfig(path=str(tmp_path / "a.parquet")))


def test_a_list_whose_urls_are_all_empty_is_an_error(tmp_path):
    """A wrong url_column shows at once."""
    path = write(tmp_path / "a.parquet", [{"url": "", "caption": "x"}])
    with pytest.raises(ValueError, match=r"none of the 1 rows of .* has a URL; is url_column"):
        ingest(Dataset(str(tmp_path / "data")), IngestConfig(path=path))


def test_datacomp_metadata_becomes_scores(tmp_path):
    """Scores and the L/14 embeddings of the npz become scores_datacomp, aligned with urls."""
    n, rng = 50, np.random.default_rng(0)
    for name in ("00", "01"):
        begin = int(name) * n
        rows = [
            {
                "uid": f"{i:032x}",
                "url": f"http://a.example/{i}",
                "text": f"t{i}",
                "original_width": i,
                "clip_b32_similarity_score": i / 1000,
                "clip_l14_similarity_score": i / 2000,
                "face_bboxes": [[0.0, 0.0, 1.0, 1.0]],
                "sha256": "0" * 64,
            }
            for i in range(begin, begin + n)
        ]
        write(tmp_path / f"{name}.parquet", rows)
        arrays = {
            f"{m}_{side}": rng.normal(size=(n, d)).astype(np.float16) + np.float16(begin)
            for m, d in (("b32", 4), ("l14", 6))
            for side in ("img", "txt")
        }
        arrays["l14_img"][:, 0] = np.arange(begin, begin + n)
        np.savez(tmp_path / f"{name}.npz", **arrays)
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=f"{tmp_path}/*.parquet", part_rows=30))
    assert sorted(data.parts("scores_datacomp")) == sorted(data.parts("urls"))
    for part in data.parts("urls"):
        urls, scores = data.read("urls", part), data.read("scores_datacomp", part)
        assert scores.schema.field("image_emb").type == pa.list_(pa.float16(), 6)
        assert (
            scores["uid"].to_pylist() == urls["uid"].to_pylist() == scores["caption_id"].to_pylist()
        )
        number = [int(u.rsplit("/", 1)[-1]) for u in urls["url"].to_pylist()]
        assert [int(s, 16) for s in urls["source_uid"].to_pylist()] == number
        assert [v[0] for v in scores["image_emb"].to_pylist()] == number
        assert np.allclose(scores["clip_b32_similarity_score"].to_numpy(), np.array(number) / 1000)
        assert scores["error"].null_count == scores.num_rows
    names = set(table(data, "urls")[0])
    assert {"in_original_width", "in_face_bboxes", "in_sha256"} <= names
    assert not any("similarity" in name for name in names)


def test_a_root_in_memory_takes_lists_from_memory():
    """Root and list may be fsspec URLs."""
    data = Dataset("memory://ingest-root")
    with data.fs.open("/ingest-lists/a.parquet", "wb") as stream:
        pq.write_table(pa.Table.from_pylist(pairs(20)), stream)
    ingest(data, IngestConfig(path="memory://ingest-lists"))
    ingest(data, IngestConfig(path="memory://ingest-lists/*.parquet", batch="again"))
    assert data.rows("urls") == 20
    assert data.rows("sightings") == 40
