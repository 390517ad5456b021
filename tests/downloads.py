"""One part downloaded without a dataset, for tests."""

from __future__ import annotations

import io
import tarfile
from functools import partial

import pyarrow as pa

from curate.engine import shared
from curate.shard_download import UNPLACED, ShardDownloader
from curate.web.dispatch import Dispatcher
from schemas.configs import DownloadConfig
from schemas.tables import URLS, uid_of
from tests.fault_server import FaultServer


def config(web: FaultServer, **knobs) -> DownloadConfig:
    quick = {
        "timeout_s": 2,
        "deadline_s": 1.5,
        "retries": 0,
        "retry_wait_s": 0.01,
        "image_size": 64,
        "reencode": "always",  # as img2dataset does
    }
    return DownloadConfig(**(quick | {"allow_hosts": (web.address,)} | knobs))


def rows_of(pairs: list[tuple[str, str | None]], **extra) -> pa.Table:
    urls, captions = [u for u, _ in pairs], [c for _, c in pairs]
    columns = {
        "uid": [uid_of(u, c) for u, c in pairs],
        "url": urls,
        "caption": captions,
        **{n: [None] * len(pairs) for n in ("source_uid", "tar", "tar_offset", "tar_size")},
    }
    schema = pa.schema([*URLS, *(pa.field(n, pa.array(v).type) for n, v in extra.items())])
    return pa.table(columns | extra, schema=schema)


def run(rows: pa.Table, knobs: DownloadConfig) -> tuple[dict[str, dict], bytes, dict]:
    """Samples by URL, the tar's bytes and the stats."""
    stream = io.BytesIO()
    with shared(partial(Dispatcher, knobs.per_host, knobs.per_host_rate), 0) as desk:
        downloader = ShardDownloader(knobs, desk)
        try:
            samples, stats = downloader(rows, stream)
        finally:
            downloader.close()
    assert samples.schema == UNPLACED
    assert samples["uid"].to_pylist() == sorted(rows["uid"].to_pylist())
    url = dict(zip(rows["uid"].to_pylist(), rows["url"].to_pylist(), strict=True))
    return {url[s["uid"]]: s for s in samples.to_pylist()}, stream.getvalue(), stats


def members(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened.getmembers()}
