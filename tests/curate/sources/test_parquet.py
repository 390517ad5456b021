"""Parquet lists and DataComp's metadata: types, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import sources
from curate.sources.files import find
from schemas.configs import IngestConfig


def read(path: Path | str, **knobs: Any) -> pa.Table:
    config = IngestConfig(path=str(path), **knobs)
    files = find(config.path, config.format)
    return pa.concat_tables([r.table for f in files for r in sources.read(f, config)])


def datacomp(n: int) -> pa.Table:
    number = np.arange(n)
    return pa.table(
        {
            "uid": [f"{i:032x}" for i in number],
            "url": [f"http://a/{i}" for i in number],
            "text": ["t"] * n,
            "clip_b32_similarity_score": pa.array(number / 10, pa.float64()),
            "clip_l14_similarity_score": pa.array(number / 20, pa.float64()),
        }
    )


def test_types_are_kept(tmp_path):
    """Nested columns and timestamps stay what they are; dictionaries become their values."""
    rows = pa.table(
        {
            "URL": pa.array(["u"], pa.large_string()),
            "alt": pa.array(["c"]).dictionary_encode(),
            "box": pa.array([[{"x": 1.5}]]),
            "when": pa.array([0], pa.timestamp("ms")),
            "tag": pa.array(["t"]).dictionary_encode(),
        }
    )
    pq.write_table(rows, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found["caption"].to_pylist() == ["c"]
    assert found.schema.field("in_box").type == rows.schema.field("box").type
    assert found.schema.field("in_when").type == pa.timestamp("ms")
    assert found.schema.field("in_tag").type == pa.string()


def test_a_caption_must_be_text(tmp_path):
    """A list as caption is refused with its type."""
    pq.write_table(pa.table({"url": ["u"], "caption": [["a", "b"]]}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=r"a\.parquet: column 'caption' holds list<.*>, text is needed"
    ):
        read(tmp_path / "a.parquet")


def test_scores_without_embeddings(tmp_path):
    """DataComp's parquet alone gives two similarities; `format: parquet` keeps them in urls."""
    pq.write_table(datacomp(3), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert found.schema.field("score:clip_b32_similarity_score").type == pa.float32()
    assert "score:image_emb" not in found.column_names
    assert (
        "in_clip_b32_similarity_score"
        in read(tmp_path / "a.parquet", format="parquet").column_names
    )


def test_b32_embeddings_where_there_are_no_others(tmp_path):
    """Without the L/14 pair the B/32 pair is taken."""
    pq.write_table(datacomp(3), tmp_path / "a.parquet")
    np.savez(
        tmp_path / "a.npz",
        b32_img=np.eye(3, 4, dtype=np.float16),
        b32_txt=np.ones((3, 4), np.float16),
    )
    found = read(tmp_path / "a.parquet")
    assert found["score:image_emb"].to_pylist() == np.eye(3, 4).tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"l14_img": np.ones((2, 4)), "l14_txt": np.ones((3, 4))},
            r"l14_img is \[2, 4\] while a\.parquet has 3 rows",
        ),
        ({"dedup": np.ones(3)}, r"it holds dedup, not l14_img and l14_txt or b32_img and b32_txt"),
        ({"l14_img": np.array([{}] * 3), "l14_txt": np.ones(3)}, "Object arrays cannot be loaded"),
        (None, "cannot be read as DataComp's embeddings"),
    ],
)
def test_embeddings_that_do_not_fit_are_named(tmp_path, arrays, message):
    """Another row count, other arrays, pickles and broken files: one line that names the npz."""
    pq.write_table(datacomp(3), tmp_path / "a.parquet")
    if arrays is None:
        (tmp_path / "a.npz").write_bytes(b"PK but not really")
    else:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}"):
        read(tmp_path / "a.parquet")


def test_datacomp_is_more_than_a_name(tmp_path):
    """`format: datacomp` on another list says which columns that needs."""
    pq.write_table(pa.table({"url": ["u"], "text": ["t"]}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=r"not DataComp's metadata, which has uid, url.*its columns are: url, text"
    ):
        read(tmp_path / "a.parquet", format="datacomp")
