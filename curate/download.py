"""Download: urls -> samples, images.

A part's URLs are fetched (fetch.py), resized (resize.py) and written in the order of their uids, so
that the tar's bytes depend on what came, never on when. Columns, file names, statuses and stats are
img2dataset's; its WebDataset writer is not used: it stamps the time on every member, sorts the text
behind the JSON and does not tell where a member is.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from curate import storage, tars
from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import run_parts
from curate.fetch import Fetched, fetch_all
from curate.resize import Picture, Pictures
from schemas.configs import DownloadConfig, Workers
from schemas.tables import SAMPLES, clean

SUCCESS, NOT_DOWNLOADED, NOT_RESIZED = "success", "failed_to_download", "failed_to_resize"
FAILURES = (NOT_DOWNLOADED, NOT_RESIZED)
UNPLACED = pa.schema([f for f in SAMPLES if f.name != "shard"])  # samples before the tar has a name
AT_ONCE = 64  # images at hand that are read in one go
SPOOL_BYTES = 64 << 20  # of a part's encoded images in memory; more of them go to a temporary file
FACTS = ("width", "height", "original_width", "original_height", "exif", "sha256")
META = ("key", "status", "error_message", *FACTS)  # in a .json, beside the list's columns

Stats = dict[str, Any]


def download(
    data: Dataset,
    config: DownloadConfig,
    workers: Workers | int = 0,
    *,
    retry_failed: bool = False,
    statuses: Sequence[str] = (),
) -> None:
    """Download what `samples` lacks, one part per task, and publish.

    retry_failed: then try the failed rows of the parts that were there before once more; a part
    where one of them now succeeds gets its next generation (and a small tar of the new images), any
    other part stays as it is.
    statuses: which failures to retry, of failed_to_download and failed_to_resize; (): both.
    Raises ValueError for another status, or where `samples` was made with another config.
    Cost per million 800 x 600 JPEGs: 5 300 CPU seconds to resize, hash and encode at 256 x 256.
    """
    if wrong := sorted(set(statuses) - set(FAILURES)):
        raise ValueError(f"statuses has {wrong[0]!r}: only {' and '.join(FAILURES)} can be retried")
    listed = data.parts("urls")
    claim = data.claim("samples", config, of=["urls"])
    missing = data.missing(claim)
    before = sorted(set(listed) - set(missing)) if retry_failed else []
    run_parts(partial(_builder, data, config, claim, ()), missing, workers, label="download")
    data.publish(claim)
    again = partial(_builder, data, config, claim, tuple(statuses) or FAILURES)
    run_parts(again, before, workers, label="retry")
    data.publish(claim)


def _builder(
    data: Dataset, config: DownloadConfig, claim: Claim, retried: tuple[str, ...]
) -> Callable[[int], dict[str, float]]:
    """Once per worker: what computes a part, or, where `retried` names statuses, its next one."""
    downloader = ShardDownloader(config)
    if retried:
        return partial(_retry, data, claim, downloader, retried)
    return partial(_first, data, claim, downloader)


def _first(data: Dataset, claim: Claim, downloader: ShardDownloader, part: int) -> dict[str, float]:
    if data.has(claim, part):  # by a worker that died before it could say so
        return {}
    with tempfile.TemporaryFile() as tar:
        samples, stats = downloader(data.read("urls", part), tar)
        data.write(claim, part, _placed(data, part, samples, stats, tar))
    return _counts(stats)


def _retry(
    data: Dataset, claim: Claim, downloader: ShardDownloader, retried: tuple[str, ...], part: int
) -> dict[str, float]:
    old = data.read("samples", part)
    failed = old.filter(pc.is_in(old["status"], pa.array(retried)))["uid"]
    urls = data.read("urls", part)
    rows = urls.filter(pc.is_in(urls["uid"], failed))
    if not rows.num_rows:
        return {}
    with tempfile.TemporaryFile() as tar:
        samples, stats = downloader(rows, tar)
        if stats["successes"]:
            placed = _placed(data, part, samples, stats, tar)
            data.write(claim, part, merge_generations(old, placed), again=True)
    return _counts(stats)


def _placed(data: Dataset, part: int, samples: pa.Table, stats: Stats, tar: BinaryIO) -> pa.Table:
    """`samples` with the name of the shard that its tar got, and the stats beside that."""
    tar.seek(0)
    with data.new_tar(part) as (name, stream):
        shutil.copyfileobj(tar, stream, 1 << 20)
    stem = name.removesuffix(".tar")
    storage.replace(data.fs, data.tar_path(f"{stem}_stats.json"), tars.dumps(stats))
    shard = pc.if_else(pc.equal(samples["status"], SUCCESS), name, pa.scalar(None, pa.string()))
    return samples.append_column("shard", shard).select(SAMPLES.names)


def _counts(stats: Stats) -> dict[str, float]:
    return {"rows": stats["count"], **{n: stats[n] for n in ("successes", *FAILURES)}}


def merge_generations(old: pa.Table, new: pa.Table) -> pa.Table:
    """`old` with the rows of `new` for those with the same uid, attempts added; sorted by uid.

    Both have the same columns, `uid` and `attempts` among them. Raises ValueError if they differ.
    """
    if set(old.column_names) != set(new.column_names):
        different = sorted(set(old.column_names) ^ set(new.column_names))
        raise ValueError(f"two generations of a part differ in columns: {', '.join(different)}")
    before = dict(zip(old["uid"].to_pylist(), old["attempts"].to_pylist(), strict=True))
    pairs = zip(new["uid"].to_pylist(), new["attempts"].to_pylist(), strict=True)
    attempts = pa.array([(n or 0) + (before.get(uid) or 0) for uid, n in pairs], pa.int32())
    new = new.set_column(new.schema.get_field_index("attempts"), "attempts", attempts)
    kept = old.filter(pc.invert(pc.is_in(old["uid"], new["uid"])))
    return pa.concat_tables([kept, new.select(old.column_names).cast(old.schema)]).sort_by("uid")


@dataclass(frozen=True)
class _Outcome:
    """A row's end. `picture.encoded` was moved to the spool: `size` bytes at `begin`."""

    status: str
    picture: Picture
    attempts: int
    begin: int = 0
    size: int = 0


class _Spool:
    """Finished images in order of arrival, in memory while they are few."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.size = 0

    def keep(self, picture: Picture, attempts: int) -> _Outcome:
        if picture.error is not None:
            return _Outcome(NOT_RESIZED, picture, attempts)
        begin, size = self.size, len(picture.encoded)
        self.stream.write(picture.encoded)
        self.size += size
        return _Outcome(SUCCESS, replace(picture, encoded=b""), attempts, begin, size)

    def read(self, outcome: _Outcome) -> bytes:
        self.stream.seek(outcome.begin)
        return bytes(self.stream.read(outcome.size))


class ShardDownloader:
    """The rows of one part -> its samples and its tar; one thread decodes while others come in."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self.pictures = Pictures(config)

    def __call__(self, rows: pa.Table, tar_stream: BinaryIO) -> tuple[pa.Table, Stats]:
        """Samples (schema UNPLACED, sorted by uid) and img2dataset's stats of the rows of `urls`.

        rows: schema URLS and in_* columns; those that have a `tar` are read from there and kept as
        they are, the others come over the network.
        tar_stream: gets per success {uid}.jpg|png|webp, {uid}.txt and {uid}.json.
        """
        start = time.time()
        listed = rows.sort_by("uid").to_pylist()
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as stream:
            spool = _Spool(stream)
            outcomes = self._at_hand(listed, spool) | asyncio.run(self._fetched(listed, spool))
            samples = _write(listed, outcomes, spool, tar_stream)
        return samples, _stats(samples, start)

    async def _fetched(self, rows: list[dict[str, Any]], spool: _Spool) -> dict[int, _Outcome]:
        wanted = [i for i, row in enumerate(rows) if row["tar"] is None]
        outcomes: dict[int, _Outcome] = {}
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="resize") as thread:

            async def keep(index: int, fetched: Fetched) -> None:
                row, tries = wanted[index], fetched.attempts
                if fetched.body is None:
                    outcomes[row] = _Outcome(NOT_DOWNLOADED, Picture(fetched.error), tries)
                    return
                picture = await loop.run_in_executor(thread, self.pictures.resized, fetched.body)
                outcomes[row] = spool.keep(picture, tries)

            await fetch_all([rows[i]["url"] for i in wanted], self.config, keep)
        return outcomes

    def _at_hand(self, rows: list[dict[str, Any]], spool: _Spool) -> dict[int, _Outcome]:
        outcomes: dict[int, _Outcome] = {}
        local = [i for i, row in enumerate(rows) if row["tar"] is not None]
        local.sort(key=lambda i: (rows[i]["tar"], rows[i]["tar_offset"]))
        for begin in range(0, len(local), AT_ONCE):
            some = local[begin : begin + AT_ONCE]
            for i, body in zip(some, self._ranges([rows[i] for i in some]), strict=True):
                if isinstance(body, str):
                    outcomes[i] = _Outcome(NOT_DOWNLOADED, Picture(body), 1)
                else:
                    outcomes[i] = spool.keep(self.pictures.unchanged(body), 1)
        return outcomes

    def _ranges(self, rows: list[dict[str, Any]]) -> Iterator[bytes | str]:
        """The bytes of each row's image in its tar, or why there are none."""
        fitting = [row for row in rows if row["tar_size"] <= self.config.max_bytes]
        found: dict[str, bytes | Exception] = {}
        for tar in dict.fromkeys(row["tar"] for row in fitting):
            here = [row for row in fitting if row["tar"] == tar]
            fs, path = fsspec.core.url_to_fs(tar)
            starts = [row["tar_offset"] for row in here]
            ends = [row["tar_offset"] + row["tar_size"] for row in here]
            blocks = fs.cat_ranges([path] * len(here), starts, ends, on_error="return")
            found |= dict(zip((row["uid"] for row in here), blocks, strict=True))
        for row in rows:
            block = found.get(row["uid"])
            if block is None:
                yield f"body larger than {self.config.max_bytes} bytes"
            elif isinstance(block, Exception):
                yield f"unreadable tar: {type(block).__name__}"
            else:
                yield block if len(block) == row["tar_size"] else "body shorter than declared"


def _write(
    rows: list[dict[str, Any]], outcomes: dict[int, _Outcome], spool: _Spool, stream: BinaryIO
) -> pa.Table:
    samples = []
    with tars.new(stream) as tar:
        for i, row in enumerate(rows):
            sample = _sample(row, outcomes[i])
            if outcomes[i].status == SUCCESS:
                uid, meta = row["uid"], {name: sample[name] for name in META}
                image = spool.read(outcomes[i])
                sample["offset"] = tars.add(tar, f"{uid}.{outcomes[i].picture.suffix}", image)
                sample["size"] = len(image)
                tars.add(tar, f"{uid}.txt", clean(row["caption"]).encode())
                tars.add(tar, f"{uid}.json", tars.dumps(_of_list(row) | meta))
            samples.append(sample)
    return pa.Table.from_pylist(samples, schema=UNPLACED)


def _sample(row: dict[str, Any], outcome: _Outcome) -> dict[str, Any]:
    picture = outcome.picture
    return {
        "uid": row["uid"],
        "key": row["uid"],
        "status": outcome.status,
        "error_message": picture.error,
        **{name: getattr(picture, name) if outcome.status == SUCCESS else None for name in FACTS},
        "phash": picture.phash,
        "thumbnail": picture.thumbnail,
        "attempts": outcome.attempts,
    }


def _of_list(row: dict[str, Any]) -> dict[str, Any]:
    """What the list says of a pair, in the order of img2dataset's columns."""
    extra = {name: value for name, value in row.items() if name.startswith("in_")}
    return extra | {"caption": row["caption"], "url": row["url"]}


def _stats(samples: pa.Table, start: float) -> Stats:
    statuses = Counter(samples["status"].to_pylist())
    reasons = [
        SUCCESS if error is None else error for error in samples["error_message"].to_pylist()
    ]
    end = time.time()
    return {
        "count": samples.num_rows,
        "successes": statuses[SUCCESS],
        **{failure: statuses[failure] for failure in FAILURES},
        "duration": end - start,
        "start_time": start,
        "end_time": end,
        "status_dict": dict(Counter(reasons).most_common()),
    }
