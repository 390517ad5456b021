"""The download stage on a server with every fault, beside img2dataset's own downloader."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.dataset import Dataset
from curate.download import download, merge_generations, parts_in_hand
from curate.ingest import ingest
from curate.resize import Pictures
from schemas.configs import DownloadConfig, IngestConfig
from schemas.tables import SAMPLES
from tests.downloads import config, members, rows_of, run
from tests.fault_server import FaultServer, fault_server, forbidden, picture

COMPARED = ["status", "error_message", "width", "height", "original_width",
            "original_height", "exif", "sha256"]  # fmt: skip


@pytest.fixture(scope="module")
def web():
    with fault_server() as server:
        yield server


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model \u00e9 9"
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(2))).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG that says side x side pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def mixed(web: FaultServer) -> list[tuple[str, str | None]]:
    """What img2dataset and we have to agree on."""
    web.serve("/exif.jpg", with_exif())
    web.serve("/page.jpg", b"<html><body>no image here</body></html>", "text/html")
    urls = [
        web.image("/one/photo.jpg", seed=1),
        web.image("/two/photo.jpg", seed=2, width=200, height=120),
        web.image("/tall.jpg", seed=3, width=40, height=70),
        web.image("/alpha.png", seed=4, kind="PNG", mode="RGBA"),
        web.image("/plain.png", seed=5, kind="PNG"),
        web.image("/p.webp", seed=6, kind="WEBP", width=90, height=90),
        web.image("/tiny.jpg", seed=8, width=10, height=12),
        web.image("/long.jpg", seed=9, width=150, height=30),
        web.image("/large.jpg", seed=9, width=300, height=300),
        web.url("/exif.jpg"),
        web.url("/page.jpg"),
        web.url("/status/404"),
        web.url("/status/410"),
        web.url("/status/503"),
        web.url("/robots?tag=noai"),
        web.url("/redirect?to=/one/photo.jpg"),
        web.url("/busy/always"),
    ]
    web.hits["/busy/always"] = 0
    return [(url, f"caption {i}") for i, url in enumerate(urls)]


LIMITS = {"min_image_size": 20, "max_aspect_ratio": 3.0, "max_image_area": 50_000}


def img2datasets_own(pairs: list[tuple[str, str | None]], folder: Path, knobs: DownloadConfig):
    """The parquet, the tar and the stats that img2dataset writes for the same list."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    table = pa.table({"caption": [c for _, c in pairs], "url": [u for u, _ in pairs]})
    with pa.ipc.new_file(str(folder / "0.feather"), table.schema) as writer:
        writer.write_table(table)
    resizer = Resizer(knobs.image_size, knobs.resize_mode, False, **LIMITS)
    downloader = Downloader(
        WebDatasetSampleWriter, resizer, 4, True, True, str(folder), ["caption", "url"], 2, 100, 5,
        "sha256", None, "jpg", 0, None, list(knobs.disallowed_header_directives),
    )  # fmt: skip
    assert downloader((0, str(folder / "0.feather")))[0]
    stats = json.loads((folder / "00000_stats.json").read_text())
    return pq.read_table(folder / "00000.parquet"), (folder / "00000.tar").read_bytes(), stats


@pytest.mark.parametrize("resize_mode", ["border", "keep_ratio", "center_crop"])
def test_rows_images_and_stats_are_img2datasets_own(web, tmp_path, resize_mode):
    """Statuses, errors, sizes, EXIF, hashes, image bytes and metadata equal img2dataset's."""
    pairs, knobs = mixed(web), config(web, resize_mode=resize_mode, **LIMITS)
    theirs, their_tar, their_stats = img2datasets_own(pairs, tmp_path, knobs)
    web.hits["/busy/always"] = 0
    ours, our_tar, our_stats = run(rows_of(pairs), knobs)
    their_members, our_members = members(their_tar), members(our_tar)
    for row in theirs.to_pylist():
        mine = ours[row["url"]]
        assert {n: mine[n] for n in COMPARED} == {n: row[n] for n in COMPARED}
        if row["status"] != "success":
            assert not [n for n in our_members if n.startswith(mine["uid"])]
            continue
        for suffix in ("jpg", "txt"):
            assert our_members[f"{mine['uid']}.{suffix}"] == their_members[f"{row['key']}.{suffix}"]
        meta = json.loads(our_members[f"{mine['uid']}.json"])
        assert meta == json.loads(their_members[f"{row['key']}.json"]) | {"key": mine["uid"]}
        assert list(meta) == list(json.loads(their_members[f"{row['key']}.json"]))
    counted = ["count", "successes", "failed_to_download", "failed_to_resize", "status_dict"]
    assert {n: our_stats[n] for n in counted} == {n: their_stats[n] for n in counted}
    assert list(our_stats)[: len(their_stats)] == list(their_stats)  # then ours
    assert our_stats["successes"] >= 7
    assert our_stats["failed_to_resize"] == 4


def test_the_tar_has_whole_samples_in_uid_order_and_the_rows_say_where(web):
    """Members are contiguous, image first, at time 0; offset and size give the image's bytes."""
    samples, tar, _ = run(rows_of(mixed(web)), config(web))
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        infos = opened.getmembers()
    done = sorted(s["uid"] for s in samples.values() if s["status"] == "success")
    assert [i.name for i in infos] == [f"{u}.{x}" for u in done for x in ("jpg", "txt", "json")]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {
        (0, 0, 0, "", "", 0o444)
    }
    inside = members(tar)
    for sample in (s for s in samples.values() if s["status"] == "success"):
        image = tar[sample["offset"] : sample["offset"] + sample["size"]]
        assert image == inside[f"{sample['key']}.jpg"]
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(image, np.uint8), 1), cv2.COLOR_BGR2RGB)
        assert pixels.shape == (sample["height"], sample["width"], 3)


def test_what_an_image_looks_like_is_written_of_what_was_stored_alone(web):
    """Both hashes, the thumbnail and the pixels' sha256 are Picture's; null where nothing came."""
    url = web.image("/looks/a.jpg", seed=3)
    missing = web.url("/status/404")
    samples, _, _ = run(rows_of([(url, "a"), (missing, "b")]), config(web))
    picture = Pictures(config(web)).resized(web.files["/looks/a.jpg"][1])
    looks = ("phash", "dhash", "thumbnail", "pixel_sha256")
    stored, failed = ([samples[u][name] for name in looks] for u in (url, missing))
    assert stored == [getattr(picture, name) for name in looks]
    assert None not in stored
    assert failed == [None] * 4


def test_the_bytes_depend_on_what_came_and_not_on_when(web):
    """The list reversed, one request at a time: the same tar and the same rows."""
    rows = rows_of(mixed(web))
    web.hits["/busy/always"] = 1
    samples, tar, _ = run(rows, config(web))
    again, same, _ = run(rows.take(list(range(rows.num_rows))[::-1]), config(web, concurrency=1))
    assert same == tar
    assert again == samples


def test_every_fault_of_the_web_is_a_row_with_its_reason(web):
    """Dead, slow, lying, hostile and forbidden URLs have their reason; 500 then fine succeeds."""
    web.serve("/empty.jpg", b"")
    web.serve("/bomb.png", png_bomb(60_000), "image/png")
    web.serve("/big.png", png_bomb(10_000), "image/png")
    with forbidden() as other:
        expected = {
            web.image("/fine.jpg", seed=1): None,
            web.url("/flaky/here"): None,
            web.url("/busy/here"): None,
            web.url("/silent"): "timed out",
            web.url("/drip"): "timed out",
            web.url("/endless"): "body larger than 100000 bytes",
            web.url("/says_huge"): "body larger than 100000 bytes",
            web.url("/cut"): "body shorter than declared",
            web.url("/empty.jpg"): "Image decoding error",
            web.url("/bomb.png"): "image area too large",
            web.url("/big.png"): "image area too large",
            web.url("/loop"): "too many redirects",
            web.url(f"/redirect?to={other.url}"): "address 127.0.0.2 is not public",
            other.url: "address 127.0.0.2 is not public",
            "file:///etc/passwd": "scheme file is not allowed",
            "data:image/png;base64,AAAA": "scheme data is not allowed",
            "ftp://127.0.0.1/x": "scheme ftp is not allowed",
        }
        knobs = config(web, max_bytes=100_000, retries=1, max_pixels=50_000_000)
        samples, _, stats = run(rows_of([(url, "x") for url in expected]), knobs)
        assert other.visits() == 0
    assert {url: s["error_message"] for url, s in samples.items()} == expected
    ends = ("successes", "failed_to_download", "failed_to_resize")
    assert stats["count"] == sum(stats[name] for name in ends)
    assert stats["count"] == sum(stats["status_dict"].values()) == len(expected)
    resize = {url for url, s in samples.items() if s["status"] == "failed_to_resize"}
    assert resize == {web.url(p) for p in ("/empty.jpg", "/bomb.png", "/big.png")}
    twice = {web.url(p) for p in ("/flaky/here", "/busy/here", "/cut")}  # others: no time left
    assert {url for url, s in samples.items() if s["attempts"] == 2} == twice
    assert {s["attempts"] for s in samples.values()} == {1, 2}


def test_any_caption_and_any_extra_column_goes_through_text_and_json(web):
    """NUL, newlines, quotes, other scripts and null come back; NaN becomes null, dates text."""
    url = web.image("/caption.jpg", seed=1)
    captions = ["a\0b", "two\nlines\r\n", '"}\\', "\u202e\U0001f600 \u65e5\u672c", "", None]
    rows = rows_of([(url, c) for c in captions[:4]] + [(url + "?e", ""), (url + "?n", None)],
                   in_score=[0.5, float("nan"), float("inf"), 1.0, 2.0, None],
                   in_date=pa.array([0] * 6, pa.timestamp("s")))  # fmt: skip
    web.serve("/caption.jpg", picture(1))
    inside = members(run(rows, config(web))[1])
    scores = {}
    for row in rows.to_pylist():
        meta = json.loads(inside[f"{row['uid']}.json"], parse_constant=pytest.fail)
        assert inside[f"{row['uid']}.txt"].decode() == (row["caption"] or "")
        assert meta["caption"] == row["caption"]
        assert list(meta)[:4] == ["in_score", "in_date", "caption", "url"]
        assert meta["in_date"] == "1970-01-01 00:00:00"
        scores[row["caption"]] = meta["in_score"]
    assert scores == dict(zip(captions, [0.5, None, None, 1.0, 2.0, None], strict=True))


def test_images_at_hand_are_kept_byte_for_byte(web, tmp_path):
    """Rows with a tar are read from there: any of jpg, png and webp, checked, not re-encoded."""
    bodies = {
        "a.jpg": picture(1, 33, 44),
        "b.png": picture(2, 50, 20, kind="PNG", mode="RGBA"),
        "c.webp": picture(3, 30, 30, kind="WEBP"),
        "d.jpg": b"not an image",
        "e.gif": picture(4, kind="GIF", mode="L"),
        "f.jpg": picture(5),
    }
    path = tmp_path / "mine.tar"
    with tarfile.open(path, "w") as tar:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    with tarfile.open(path) as tar:
        infos = {m.name: m for m in tar.getmembers()}
    rows = rows_of([(f"https://example.org/{n}", n) for n in bodies])
    places = [(str(path), infos[n].offset_data, infos[n].size) for n in bodies]
    places[5] = (str(tmp_path / "gone.tar"), 0, 10)
    for i, column in enumerate(("tar", "tar_offset", "tar_size")):
        index = rows.schema.get_field_index(column)
        rows = rows.set_column(index, rows.schema.field(index), [[p[i] for p in places]])
    samples, tar_bytes, _ = run(rows, config(web, image_size=16))
    inside = members(tar_bytes)
    for name in ("a.jpg", "b.png", "c.webp"):
        sample = samples[f"https://example.org/{name}"]
        assert inside[f"{sample['uid']}.{name[2:]}"] == bodies[name]
        assert sample["sha256"] == hashlib.sha256(bodies[name]).hexdigest()
        assert sample["attempts"] == 1
    jpg = samples["https://example.org/a.jpg"]
    assert (jpg["width"], jpg["height"]) == (33, 44)
    assert samples["https://example.org/d.jpg"]["error_message"] == "Image decoding error"
    assert samples["https://example.org/e.gif"]["error_message"] == "GIF is not jpg, png or webp"
    gone = samples["https://example.org/f.jpg"]
    assert gone["status"] == "failed_to_download"
    assert gone["error_message"] == "unreadable tar: FileNotFoundError"


def test_generations_merge_by_uid_and_add_attempts():
    """Retried rows replace their older selves, the others stay, and attempts are summed."""

    def table(uids: str, statuses: str, attempts: list[int | None]) -> pa.Table:
        columns = {"uid": list(uids), "status": list(statuses)}
        return pa.table(columns | {"attempts": pa.array(attempts, pa.int32())})

    old, new = table("abc", "xyz", [1, 3, None]), table("cb", "CB", [2, 1])
    merged = merge_generations(old, new)
    assert merged.to_pylist() == [
        {"uid": "a", "status": "x", "attempts": 1},
        {"uid": "b", "status": "B", "attempts": 4},
        {"uid": "c", "status": "C", "attempts": 2},
    ]
    assert merge_generations(old, new.slice(0, 0)).equals(old)
    with pytest.raises(ValueError, match="differ in columns: status"):
        merge_generations(old, new.drop_columns("status"))


def dataset(root: str, tables: list[pa.Table]) -> Dataset:
    data = Dataset(root)
    claim = data.claim("urls", IngestConfig(path="list"), append=True)
    for part, rows in enumerate(tables):
        data.write(claim, part, rows.sort_by("uid"))
    data.publish(claim)
    return data


def test_the_stage_fills_parts_resumes_and_publishes(web, tmp_path):
    """Each part of urls gets samples and a tar; a second run finds nothing to do."""
    tables = [
        rows_of([(web.image(f"/s{p}/{i}.jpg", seed=i), f"{p} {i}") for i in range(4)])
        for p in (0, 1)
    ]
    data = dataset(str(tmp_path / "d"), tables)
    download(data, config(web))
    for part in (0, 1):
        samples = data.read("samples", part)
        assert samples.schema.remove_metadata() == SAMPLES
        assert samples["uid"].to_pylist() == data.read("urls", part)["uid"].to_pylist()
        for sample in samples.to_pylist():
            assert sample["shard"] == f"{part:08d}.g0.tar"
            tar = Path(data.tar_path(sample["shard"])).read_bytes()
            assert tar[sample["offset"] :][:3] == b"\xff\xd8\xff"
    stats = json.loads(Path(data.tar_path("00000001.g0_stats.json")).read_text())
    assert (stats["count"], stats["successes"]) == (4, 4)
    version, hits = data.at, web.hits.total()
    download(data, config(web))
    assert (data.at, web.hits.total()) == (version, hits)


def test_a_retry_tries_failed_rows_only_and_remembers_the_attempts(web, tmp_path):
    """What now succeeds makes its part's next generation; a part that gained nothing keeps its
    attempts in one that counts as the old one."""
    gained = rows_of([(web.image("/r/ok.jpg", seed=1), "ok"), (web.url("/r/later.jpg"), "later"),
                      (web.url("/r/never.jpg"), "never")])  # fmt: skip
    lost = rows_of([(web.image("/r/ok2.jpg", seed=2), "ok"), (web.url("/status/404"), "dead")])
    data, knobs = dataset(str(tmp_path / "d"), [gained, lost]), config(web, robots_txt=False)
    download(data, knobs)
    before = {r["uid"]: r for r in data.read("samples", 0).to_pylist()}
    web.image("/r/later.jpg", seed=5)
    hits = web.hits.copy()
    assert download(data, knobs, retry_failed=True, statuses=["failed_to_resize"])["rows"] == 0
    assert web.hits == hits
    came = download(data, knobs, retry_failed=True)
    assert (came["rows"], came["successes"]) == (3, 1)
    assert web.hits - hits == {"/r/later.jpg": 1, "/r/never.jpg": 1, "/status/404": 1}
    parts = data.parts("samples")
    assert {p: (e.generation, e.content) for p, e in parts.items()} == {0: (1, 1), 1: (1, 0)}
    after = {r["uid"]: r for r in data.read("samples", 0).to_pylist()}
    for row in gained.to_pylist():
        uid, caption = row["uid"], row["caption"]
        if caption == "ok":
            assert after[uid] == before[uid]
        else:
            assert after[uid]["attempts"] == 2
            assert after[uid]["shard"] == ("00000000.g1.tar" if caption == "later" else None)
    assert len(members(Path(data.tar_path("00000000.g1.tar")).read_bytes())) == 3
    assert {s["attempts"] for s in data.read("samples", 1).to_pylist()} == {1, 2}
    assert not Path(data.tar_path("00000001.g1.tar")).exists()


def test_a_retry_can_be_of_some_errors_only(web, tmp_path):
    """An error message, with * for any text, says which failed rows are tried again."""
    pairs = [(web.url(p), p) for p in ("/status/404/x", "/status/503/x", "/status/500/x")]
    ok = [(web.image("/some/ok.jpg", seed=1), "ok")]
    data, knobs = dataset(str(tmp_path / "d"), [rows_of(pairs + ok)]), config(web, robots_txt=False)
    download(data, knobs)
    hits = web.hits.copy()
    download(data, knobs, retry_failed=True, statuses=["HTTP Error 503*", "timed out"])
    assert web.hits - hits == {"/status/503/x": 1}
    download(data, knobs, retry_failed=True, statuses=["HTTP Error 5*"])
    assert web.hits - hits == {"/status/503/x": 2, "/status/500/x": 1}


def test_the_status_of_a_success_cannot_be_retried(tmp_path):
    """The message names what can be."""
    data = dataset(str(tmp_path / "d"), [])
    with pytest.raises(ValueError, match="only failures can be retried, failed_to_download and"):
        download(data, DownloadConfig(), retry_failed=True, statuses=["success"])


def test_a_part_without_an_image_is_reported_and_tried_by_the_next_run(web, tmp_path, caplog):
    """When a whole part fails the run says so, and the next one does not take it for done."""
    paths = [f"/outage/{i}.jpg" for i in range(4)]
    good = rows_of([(web.image("/up.jpg", seed=3), "up"), (web.url("/status/404"), "dead")])
    outage = rows_of([(web.url(p), p) for p in paths])
    data, knobs = dataset(str(tmp_path / "d"), [good, outage]), config(web, robots_txt=False)
    came = download(data, knobs)
    assert came["parts_without_images"] == [1]
    assert "part 00000001 has no image: 4 of its 4 rows say 'HTTP Error 404" in caplog.text
    for i, path in enumerate(paths):
        web.image(path, seed=i)
    hits = web.hits.copy()
    came = download(data, knobs)
    assert web.hits - hits == dict.fromkeys(paths, 1)
    assert (came["successes"], came["parts_without_images"]) == (4, [])
    assert data.read("samples", 1)["attempts"].to_pylist() == [2] * 4
    assert download(data, knobs)["rows"] == 0


def test_what_is_on_a_blocklist_is_not_taken_in(web, tmp_path):
    """URLs and hosts are not asked; images with a listed sha256 or pHash are not stored."""
    urls = [web.image(f"/blocked/{i}.jpg", seed=i) for i in range(5)]
    local = urls[1].replace("127.0.0.1", "localhost")
    known = run(rows_of([(u, "x") for u in urls]), config(web))[0]
    listed = tmp_path / "takedown.txt"
    near = known[urls[3]]["phash"] ^ 0b101
    listed.write_text(
        f"# by request\nurl {urls[0]}\nhost localhost\nsha256 {known[urls[2]]['sha256']}\n"
        f"phash {near:016x} 2\n"
    )
    hits = web.hits.copy()
    knobs = config(web, blocklist=(str(listed),), robots_txt=False)
    samples, tar, _ = run(rows_of([(u, "x") for u in [local, *urls]]), knobs)
    errors = {u: s["error_message"] for u, s in samples.items()}
    assert [errors[u] for u in (urls[1], urls[4])] == [None, None]
    blocked = [urls[0], local, urls[2], urls[3]]
    assert all("blocklist" in errors[u] for u in blocked)
    assert {samples[u]["status"] for u in blocked} == {"failed_to_download"}
    assert (web.hits - hits)["/blocked/0.jpg"] == 0
    assert (web.hits - hits)["/blocked/1.jpg"] == 1
    stored = {samples[u]["uid"] for u in (urls[1], urls[4])}
    assert {name.split(".")[0] for name in members(tar)} == stored


def test_the_stats_tell_rates_bytes_and_slow_hosts(web, tmp_path):
    """Beside img2dataset's keys: what a part cost and which hosts made it wait."""
    url = web.image("/stats/a.jpg", seed=1)
    _, _, stats = run(rows_of([(url, "a"), (web.url("/status/404"), "b")]), config(web))
    assert stats["bytes"] == len(web.files["/stats/a.jpg"][1])
    assert stats["rows_per_s"] > 0
    assert stats["mb_per_s"] >= 0
    assert [h["host"] for h in stats["slowest_hosts"]] == ["127.0.0.1"]
    assert stats["stalled"] == []


def test_a_codec_that_hangs_costs_its_row_and_not_the_part(web, monkeypatch):
    """The watchdog ends the part, names the URL, and the decoders go on with the next part."""
    from curate.resize import Pictures

    good, bad = web.image("/hang/good.jpg", seed=1), web.image("/hang/bad.jpg", seed=2)
    never, whole = threading.Event(), Pictures.resized

    def hangs(self: Pictures, body: bytes, boxes=()):
        return never.wait() if body == picture(2) else whole(self, body, boxes)

    monkeypatch.setattr(Pictures, "resized", hangs)
    samples, _, stats = run(rows_of([(good, "g"), (bad, "b")]), config(web, stall_s=0.5))
    never.set()
    assert stats["stalled"] == [bad]
    assert samples[bad]["error_message"] == "stalled"
    assert samples[bad]["status"] == "failed_to_resize"


def test_two_workers_together_keep_to_what_a_host_may_see(tmp_path):
    """`per_host` open requests and `per_host_rate` hold over Ray workers, not for each."""
    with fault_server() as web:
        parts = [
            rows_of([(web.image(f"/polite/{p}/{i}.jpg", seed=i), f"{p} {i}") for i in range(20)])
            for p in range(4)
        ]
        data = dataset(str(tmp_path / "d"), parts)
        began = time.monotonic()
        download(data, config(web, per_host=2, per_host_rate=40, deadline_s=30), 2)
        seconds = time.monotonic() - began
        assert web.most_open <= 2
        assert sum(web.hits[p] for p in web.files) == 80
        assert seconds > 80 / 40 - 0.5
        assert sum(data.read("samples", p)["sha256"].null_count for p in range(4)) == 0


def test_boxes_of_the_list_are_blurred_and_bad_ones_cost_their_row(web):
    """`blur_boxes` names a column; a cell that says no boxes is an error, a missing column too."""
    urls = [web.image(f"/blur/{i}.jpg", seed=i) for i in range(3)]
    boxes = pa.array([[[0.1, 0.1, 0.8, 0.8]], None, [[0.1, 0.2, 0.3]]])
    rows = rows_of([(u, "x") for u in urls], in_faces=boxes)
    samples, tar, _ = run(rows, config(web, blur_boxes="in_faces"))
    plain = members(run(rows, config(web))[1])
    errors = [samples[u]["error_message"] for u in urls]
    assert errors[:2] == [None, None]
    assert errors[2].startswith("boxes to blur are not")
    stored = [f"{samples[u]['uid']}.jpg" for u in urls]
    assert [members(tar)[name] == plain[name] for name in stored[:2]] == [False, True]
    with pytest.raises(ValueError, match=r"blur_boxes is 'in_face': .* it has in_faces"):
        run(rows, config(web, blur_boxes="in_face"))


class Killed(BaseException):
    """The end of a run between its last part and its manifest."""


def killed_before_publishing(data: Dataset, knobs: DownloadConfig, **how) -> None:
    """A run whose parts are on disk and which nobody knows of; parts before it are known."""
    publish, known = Dataset.publish, data.tables()

    def dies(self: Dataset, *claims):
        if "samples" in known:
            known.remove("samples")  # what was there before the run's own work
            return publish(self, *claims)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "publish", dies)
        with pytest.raises(Killed):
            download(data, knobs, **how)


def test_a_retry_after_a_killed_run_begins_with_what_that_had(web, tmp_path):
    """Its parts are published first: nothing is asked twice that came."""
    knobs = config(web, robots_txt=False)
    rows = rows_of([(web.image("/after/a.jpg", seed=1), "a"), (web.url("/status/404"), "b")])
    data = dataset(str(tmp_path / "d"), [rows])
    killed_before_publishing(data, knobs)
    hits = web.hits.copy()
    came = download(Dataset(data.root), knobs, retry_failed=True)
    assert (came["rows"], came["successes"]) == (1, 0)
    assert web.hits - hits == {"/status/404": 1}


def test_a_part_without_images_of_a_killed_run_is_tried_again(web, tmp_path):
    """The resumed run does not take it for done."""
    knobs = config(web, robots_txt=False)
    data = dataset(str(tmp_path / "d"), [rows_of([(web.url("/barren/a.jpg"), "a")])])
    killed_before_publishing(data, knobs)
    web.image("/barren/a.jpg", seed=1)
    came = download(Dataset(data.root), knobs)
    assert (came["successes"], came["parts_without_images"]) == (1, [])


def test_an_image_that_a_killed_retry_has_stored_is_kept(web, tmp_path):
    """Though its URL is dead again when the retry is repeated."""
    knobs = config(web, robots_txt=False)
    rows = rows_of([(web.url("/came/a.jpg"), "a"), (web.image("/came/b.jpg", seed=2), "b")])
    data = dataset(str(tmp_path / "d"), [rows])
    download(data, knobs)
    web.image("/came/a.jpg", seed=1)
    killed_before_publishing(data, knobs, retry_failed=True)
    del web.files["/came/a.jpg"]
    again = Dataset(data.root)
    assert download(again, knobs, retry_failed=True)["rows"] == 0
    assert again.read("samples", 0)["status"].to_pylist() == ["success", "success"]


def test_cells_that_python_cannot_hold_go_through_as_text(web):
    """A date beyond the year 9999 and a time zone that nobody knows cost nothing."""
    far = pa.array([2**40, None], pa.timestamp("s"))
    odd = pa.array([0, 1], pa.timestamp("s", tz="Mars/Olympus"))
    urls = [web.image(f"/far/{i}.jpg", seed=i) for i in range(2)]
    rows = rows_of([(u, "x") for u in urls], in_far=far, in_odd=odd, in_day=far.cast(pa.date64()))
    samples, tar, _ = run(rows, config(web))
    assert {s["status"] for s in samples.values()} == {"success"}
    meta = json.loads(members(tar)[f"{samples[urls[0]]['uid']}.json"])
    assert "1099511627776" in meta["in_far"]  # as Arrow writes it
    assert json.loads(members(tar)[f"{samples[urls[1]]['uid']}.json"])["in_far"] is None


def test_statuses_without_a_retry_are_an_error(tmp_path):
    """They would silently decide what a first run tries again."""
    data = dataset(str(tmp_path / "d"), [])
    with pytest.raises(ValueError, match="statuses says which failed rows"):
        download(data, DownloadConfig(), statuses=["timed out"])


@pytest.mark.parametrize(
    ("rows", "part_rows", "expected"),
    # rows are placed by hash: the largest part of 4 000 has 1 033
    [(200, 5, 16), (4000, 1000, 9), (10_001, 10_000, 2)],
    ids=["at most 16", "ten thousand rows", "at least 2"],
)
def test_a_worker_has_small_parts_in_hand_by_their_rows(tmp_path, rows, part_rows, expected):
    """Many small parts at once, so that a silent host is waited for once; few large ones."""
    listed = pa.table({"url": [f"http://a.example/{i}.jpg" for i in range(rows)]})
    pq.write_table(listed.append_column("caption", [["x"] * rows]), tmp_path / "list.parquet")
    data = Dataset(str(tmp_path / "set"))
    ingest(data, IngestConfig(path=str(tmp_path / "list.parquet"), part_rows=part_rows))
    assert parts_in_hand(data, list(data.parts("urls"))) == expected
