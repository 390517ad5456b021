"""CSV, TSV and JSONL as they are met: quotes, newlines, no header, no types, compressed, broken."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import sources
from curate.sources.columns import Kinds
from curate.sources.files import find
from curate.sources.untyped import typed
from schemas.configs import IngestConfig


def read(path: Path | str, **knobs: Any) -> pa.Table:
    """All rows of a list, with the types of the whole."""
    config = IngestConfig(path=str(path), **knobs)
    kinds: Kinds = {}
    tables = []
    for file in find(config.path, config.format):
        for rows in sources.read(file, config):
            tables.append(rows.table)
            for name, seen in rows.kinds.items():
                kinds.setdefault(name, set()).update(seen)
    return typed(pa.concat_tables(tables, promote_options="permissive"), kinds)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@settings(max_examples=30, deadline=None)
@given(captions=st.lists(TEXT, min_size=1, max_size=6), tabs=st.booleans())
def test_any_caption_survives_csv_and_tsv(tmp_path_factory, captions, tabs):
    """Quotes, separators and newlines in captions are read as Python's csv module wrote them."""
    path = tmp_path_factory.mktemp("csv") / ("a.tsv" if tabs else "a.csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(
            stream, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_ALL, lineterminator="\n"
        )
        writer.writerows(
            [("url", "caption"), *((f"http://a/{i}", c) for i, c in enumerate(captions))]
        )
    found = read(path)
    assert found["caption"].to_pylist() == captions
    assert found["url"].to_pylist() == [f"http://a/{i}" for i in range(len(captions))]


@settings(max_examples=30, deadline=None)
@given(captions=st.lists(st.text(max_size=12), min_size=1, max_size=6), escaped=st.booleans())
def test_any_caption_survives_jsonl(tmp_path_factory, captions, escaped):
    """JSON lines, escaped or not, give the caption back."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = [
        json.dumps({"url": f"u{i}", "text": c}, ensure_ascii=escaped)
        for i, c in enumerate(captions)
    ]
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    assert read(path)["caption"].to_pylist() == captions


def test_a_csv_column_has_the_type_that_all_its_values_allow(tmp_path):
    """Whole numbers, numbers and true/false get their types over all files; "007" stays text."""
    (tmp_path / "a.csv").write_text("url,n,x,b,id,t\nu1,1,1,true,007,a\nu2,,2,false,8,\n")
    (tmp_path / "b.csv").write_text('url,n,x,b,id,t\nu3,-3,2.5e1,,9,""\n')
    found = read(tmp_path)
    assert found["in_n"].to_pylist() == [1, None, -3]
    assert found["in_x"].to_pylist() == [1.0, 2.0, 25.0]
    assert found["in_b"].to_pylist() == [True, False, None]
    assert found["in_id"].to_pylist() == ["007", "8", "9"]
    assert found["in_t"].to_pylist() == ["a", None, ""]


def test_a_json_column_has_the_type_that_all_its_values_allow(tmp_path):
    """Types hold over all lines, wherever a key comes first; lists and objects are JSON text."""
    rows = [
        {"url": "u1", "n": 1, "x": 1, "mixed": 1, "l": [1, "é"]},
        {"url": "u2", "n": 2, "x": 0.5, "mixed": "a", "late": True, "s": "12", "big": 2**70},
    ]
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(r) for r in rows))
    found = read(tmp_path / "a.jsonl")
    assert found["in_n"].to_pylist() == [1, 2]
    assert found["in_x"].to_pylist() == [1.0, 0.5]
    assert found["in_mixed"].to_pylist() == ["1", "a"]
    assert found["in_l"].to_pylist() == ['[1, "é"]', None]
    assert found["in_late"].to_pylist() == [None, True]
    assert found["in_s"].to_pylist() == [None, "12"]
    assert found["in_big"].to_pylist() == [None, str(2**70)]


def test_an_unpaired_surrogate_in_json_becomes_u_fffd(tmp_path):
    """Half a surrogate pair, escaped in the JSON, is cleaned."""
    (tmp_path / "a.jsonl").write_text('{"url": "u", "caption": "a\\ud83d", "note": "\\udc00"}')
    found = read(tmp_path / "a.jsonl")
    assert found["caption"].to_pylist() == ["a\ufffd"]
    assert found["in_note"].to_pylist() == ["\ufffd"]


def test_cc3m_has_no_header(tmp_path):
    """A first line that holds a URL is data, two columns are caption and URL, quotes are text."""
    (tmp_path / "cc3m.tsv").write_text('a cat\thttp://a/1\n"a dog\thttps://a/2\n')
    found = read(tmp_path / "cc3m.tsv")
    assert found["url"].to_pylist() == ["http://a/1", "https://a/2"]
    assert found["caption"].to_pylist() == ["a cat", '"a dog']


def test_compressed_text_is_read_as_it_is(tmp_path):
    """.csv.gz and .jsonl.gz are found in a folder and read."""
    with gzip.open(tmp_path / "a.csv.gz", "wt") as stream:
        stream.write("url,caption\nu1,one\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as stream:
        stream.write('{"url": "u2", "caption": "two"}\n')
    assert read(tmp_path)["caption"].to_pylist() == ["one", "two"]


def test_laion_names_are_recognised(tmp_path):
    """URL, TEXT and SAMPLE_ID are url, caption and source_uid; the rest keeps its name."""
    (tmp_path / "laion.csv").write_text(
        "SAMPLE_ID,URL,TEXT,WIDTH,NSFW\n12,http://a/1,cat,64,UNLIKELY\n"
    )
    found = read(tmp_path / "laion.csv")
    expected = {
        "url": "http://a/1",
        "caption": "cat",
        "source_uid": "12",
        "in_WIDTH": 64,
        "in_NSFW": "UNLIKELY",
    }
    assert found.to_pylist() == [expected]


def test_named_columns_come_before_recognised_ones(tmp_path):
    """url_column and caption_column choose; what would have been recognised becomes in_<name>."""
    (tmp_path / "a.csv").write_text("url,thumb,caption,alt\nu,t,c,a\n")
    found = read(tmp_path / "a.csv", url_column="thumb", caption_column="alt")
    assert found.to_pylist() == [
        {"url": "t", "caption": "a", "source_uid": None, "in_url": "u", "in_caption": "c"}
    ]


@pytest.mark.parametrize(
    ("name", "content", "knobs", "message"),
    [
        (
            "a.csv",
            b"link_to,text\nu,c\n",
            {},
            r"a\.csv: no url column; its columns are: link_to, text",
        ),
        (
            "a.csv",
            b"url,text\nu,c\n",
            {"caption_column": "alt"},
            r"a\.csv: no column 'alt' \(caption_column\); its columns are: url, text",
        ),
        ("a.csv", b"url,url\nu,c\n", {}, r"a\.csv: two columns are named 'url'"),
        (
            "a.csv",
            b"url,text\nu,c\nu,c,d\n",
            {},
            r"a\.csv: cannot be read as csv: .*Expected 2 columns, got 3",
        ),
        ("a.csv.gz", b"url,text\nu,c\n", {}, r"a\.csv\.gz: cannot be read as csv: "),
        ("a.jsonl", b'{"url": 1}\n{"url": \n', {}, r"a\.jsonl: line 2 is not JSON: "),
        ("a.jsonl", b'["url"]\n', {}, r"a\.jsonl: line 1 is list, not a JSON object"),
        (
            "a.jsonl",
            b'{"img": 1}\n',
            {},
            r"a\.jsonl: no url column; its columns are: img\. Name it with url_column",
        ),
        ("a.parquet", b"PAR1 but not really", {}, r"a\.parquet: cannot be read as parquet: "),
        ("a.tar", b"x" * 2000, {}, r"a\.tar: cannot be read as webdataset: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, knobs, message):
    """The error names the file, what is wrong and what was found."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name, **knobs)
    assert "\n" not in str(caught.value)
