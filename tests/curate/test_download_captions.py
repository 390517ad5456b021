"""Captions that few lists have: they are stored as they came, in bounded time."""

import json
import time
from pathlib import Path

import pytest

from curate.dataset import Dataset
from curate.ingest import ingest
from schemas.configs import IngestConfig
from schemas.tables import clean
from tests.downloads import config, members, rows_of, run
from tests.fault_server import fault_server

LONG = "word \u00e9\u65e5\U0001f600 " * 770_000  # 10 MB of characters, more of UTF-8
BROKEN = "half \ud83d of a pair, \udc00 and the other"
CAPTIONS = {
    "long": LONG,
    "nul": "before\0after\0",
    "lines": "one\ntwo\r\nthree\rfour\u2028five\n\n",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c \u200f!",
    "marks": "\ufeffa\u0301\ufffe\uffff\u200b\x7f\x1b[31m",
    "quotes": '{"a": "\\"}, \\u0000 \\ud800',
    "blank": " \t ",
    "empty": "",
    "none": None,
}
LIMIT_S = 30


@pytest.fixture
def web():
    with fault_server() as server:
        yield server


def test_any_caption_is_in_the_tar_as_it_came(web):
    """.txt holds its UTF-8 and .json its characters, also where two URLs end in the same name."""
    pairs = [
        (web.image(f"/{i}/same.jpg", seed=i), caption)
        for i, caption in enumerate(CAPTIONS.values())
    ]
    rows, began = rows_of(pairs), time.monotonic()
    samples, tar, stats = run(rows, config(web, robots_txt=False, deadline_s=10))
    assert time.monotonic() - began < LIMIT_S
    assert stats["successes"] == len(samples) == len(CAPTIONS)
    assert {sample["error_message"] for sample in samples.values()} == {None}
    files = members(tar)
    assert len(files) == 3 * len(CAPTIONS)
    for url, caption in pairs:
        uid = samples[url]["uid"]
        assert files[f"{uid}.txt"] == (caption or "").encode()
        meta = json.loads(files[f"{uid}.json"])
        assert (meta["caption"], meta["url"], meta["key"]) == (caption, url, uid)
        assert files[f"{uid}.jpg"][:2] == b"\xff\xd8"
    assert len({samples[url]["sha256"] for url, _ in pairs}) == len(pairs)


def test_unpaired_surrogates_arrive_replaced(web, tmp_path: Path):
    """Arrow cannot hold them: ingest makes U+FFFD of each, and so the tar says."""
    url = web.image("/pair.jpg", seed=1)
    listed = tmp_path / "list.jsonl"
    listed.write_text(json.dumps({"url": url, "caption": BROKEN}))
    assert "\\ud83d of" in listed.read_text()
    data = Dataset(str(tmp_path / "data"))
    ingest(data, IngestConfig(path=str(listed)))
    (part,) = data.parts("urls")
    samples, tar, _ = run(data.read("urls", part), config(web, robots_txt=False))
    expected = "half \ufffd of a pair, \ufffd and the other"
    assert clean(BROKEN) == expected
    assert samples[url]["status"] == "success"
    files = members(tar)
    uid = samples[url]["uid"]
    assert files[f"{uid}.txt"] == expected.encode()
    assert json.loads(files[f"{uid}.json"])["caption"] == expected
