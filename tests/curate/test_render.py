"""Tables as text: for people short and printable, for programs whole."""

from __future__ import annotations

import json

import pyarrow as pa

from curate.render import render

ROWS = pa.table(
    {
        "uid": ["a", "b"],
        "thumbnail": pa.array([bytes(range(192)), None], pa.binary()),
        "nested": [[1, 2], None],
    }
)


def test_people_see_how_many_bytes_there_are():
    """Bytes are never dumped on a terminal."""
    lines = render(ROWS, "table").decode().splitlines()
    assert lines[2].split() == ["a", "192", "bytes", "[1,", "2]"]
    assert lines[3].split() == ["b"]


def test_programs_get_bytes_as_hexadecimal():
    """csv and json hold them whole, as text; null stays null."""
    text = bytes(range(192)).hex()
    first, second = map(json.loads, render(ROWS, "json").splitlines())
    assert (first["thumbnail"], second["thumbnail"]) == (text, None)
    assert first["nested"] == [1, 2]
    assert f'"a","{text}","[1, 2]"' in render(ROWS, "csv").decode()
