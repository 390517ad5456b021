"""Shard download: the rows of one part of urls -> its samples and its tar.

Images come in as the web gives them and are written in the order of their uids, so that the tar's
bytes depend on what came, never on when. Columns, member names, statuses and stats are
img2dataset's; its WebDataset writer is not used: it stamps the time on every member, sorts the text
behind the JSON and does not tell where a member is.
"""

from __future__ import annotations

import ctypes
import logging
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from curate import tars
from curate.decoders import Decoders
from curate.engine import Shared
from curate.pictures.blur import BoxError, boxes_of
from curate.resize import Picture, Pictures
from curate.web.blocklist import Blocklist
from curate.web.fetch import STALLED, Fetched, Fetcher
from curate.web.tally import Tally
from curate.web.turns import Turns
from curate.web.urls import host_in
from schemas.configs import DownloadConfig
from schemas.tables import SAMPLES, clean

log = logging.getLogger(__name__)
SUCCESS, NOT_DOWNLOADED, NOT_RESIZED = "success", "failed_to_download", "failed_to_resize"
FAILURES = (NOT_DOWNLOADED, NOT_RESIZED)
UNPLACED = pa.schema([f for f in SAMPLES if f.name != "shard"])  # samples before the tar has a name
AT_ONCE = 64  # images at hand that are read in one go
SPOOL_BYTES = 4 << 20  # of a part's encoded images in memory; more of them go to a temporary file
FACTS = ("width", "height", "original_width", "original_height", "exif", "sha256")
META = ("key", "status", "error_message", *FACTS)  # in a .json, beside the list's columns

Stats = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A row's end. `picture.encoded` was moved to the spool: `size` bytes at `begin`."""

    status: str
    picture: Picture
    attempts: int
    begin: int = 0
    size: int = 0


class Spool:
    """Finished images in order of arrival, in memory while they are few."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.size = 0

    def keep(self, picture: Picture, attempts: int) -> Outcome:
        """Take a picture's bytes, or its error, in."""
        if picture.error is not None:
            return Outcome(NOT_RESIZED, picture, attempts)
        begin, size = self.size, len(picture.encoded)
        self.stream.seek(begin)
        self.stream.write(picture.encoded)
        self.size += size
        return Outcome(SUCCESS, replace(picture, encoded=b""), attempts, begin, size)

    def read(self, outcome: Outcome) -> bytes:
        """The bytes that an outcome stands for."""
        self.stream.seek(outcome.begin)
        return bytes(self.stream.read(outcome.size))


class ShardDownloader:
    """What a worker holds: its way to the web, its decoders, and the limits that all share."""

    def __init__(self, config: DownloadConfig, desk: Shared) -> None:
        """desk: the Dispatcher of all workers. Raises ValueError for a blocklist it cannot read."""
        self.config = config
        self.pictures = Pictures(config)
        self.blocklist = Blocklist(config.blocklist)
        self.turns = Turns(partial(desk.ask, "exchange"), uuid.uuid4().hex)
        self.fetcher = Fetcher(config, self.turns, self.blocklist)
        self.decoders = Decoders(config.decode_threads, config.stall_s / 2)

    def close(self) -> None:
        """Let connections and threads go."""
        self.fetcher.close()
        self.decoders.close()

    def __call__(self, rows: pa.Table, tar_stream: BinaryIO) -> tuple[pa.Table, Stats]:
        """Samples (schema UNPLACED, sorted by uid) and img2dataset's stats of the rows of `urls`.

        rows: schema URLS and in_* columns; those that have a `tar` are read from there and kept as
        they are, the others come over the network. May be called from several threads at once.
        tar_stream: gets per success {uid}.jpg|png|webp, {uid}.txt and {uid}.json.
        """
        start, tally, boxes = time.time(), Tally(), self.config.blur_boxes
        if boxes is not None and boxes not in rows.column_names:
            have = ", ".join(n for n in rows.column_names if n.startswith("in_")) or "none"
            raise ValueError(f"blur_boxes is {boxes!r}: the list has no such column, it has {have}")
        listed = _rows(rows.sort_by("uid"))
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as stream:
            spool = Spool(stream)
            outcomes = self._at_hand(listed, spool, tally)
            stalled = self._fetched(listed, spool, tally, outcomes)
            samples = _write(listed, outcomes, spool, tar_stream)
        _trim()
        return samples, _stats(samples, start, tally) | {STALLED: stalled}

    def _fetched(
        self, rows: list[Row], spool: Spool, tally: Tally, outcomes: dict[int, Outcome]
    ) -> list[str]:
        """Fill `outcomes` from the web; returns the URLs that had to be left behind."""
        wanted = [i for i, row in enumerate(rows) if row["tar"] is None]

        async def keep(index: int, fetched: Fetched) -> None:
            row, size = rows[wanted[index]], len(fetched.body or b"")
            outcome = await self._ended(row, fetched, spool)
            outcomes[wanted[index]] = outcome
            for counts in (tally, self.turns.tally):
                counts.row(fetched.host, outcome.picture.error, size, fetched.seconds)

        left = self.fetcher.fetch_all([rows[i]["url"] for i in wanted], keep)
        for i in (wanted[index] for index in left):
            outcomes[i] = Outcome(NOT_RESIZED, Picture(STALLED), 1)
            for counts in (tally, self.turns.tally):
                counts.row(host_in(rows[i]["url"]), STALLED, 0, self.config.stall_s)
        stalled = (i for i in wanted if outcomes[i].picture.error == STALLED)
        return [rows[i]["url"] for i in stalled]

    async def _ended(self, row: Row, fetched: Fetched, spool: Spool) -> Outcome:
        if fetched.body is None:
            return Outcome(NOT_DOWNLOADED, Picture(fetched.error), fetched.attempts)
        try:
            boxes = boxes_of(row[self.config.blur_boxes]) if self.config.blur_boxes else ()
            picture = await self.decoders.run(self.pictures.resized, fetched.body, boxes)
        except TimeoutError:
            picture = Picture(STALLED)
        except BoxError as error:
            picture = Picture(str(error))
        return self._kept(picture, fetched.attempts, spool)

    def _kept(self, picture: Picture, attempts: int, spool: Spool) -> Outcome:
        """`picture` in the spool, unless nobody may have it."""
        if picture.error is None and picture.sha256 is not None and picture.phash is not None:
            listed = self.blocklist.image(picture.sha256, picture.phash)
            if listed is not None:
                return Outcome(NOT_DOWNLOADED, Picture(listed), attempts)
        return spool.keep(picture, attempts)

    def _at_hand(self, rows: list[Row], spool: Spool, tally: Tally) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        local = [i for i, row in enumerate(rows) if row["tar"] is not None]
        local.sort(key=lambda i: (rows[i]["tar"], rows[i]["tar_offset"]))
        for begin in range(0, len(local), AT_ONCE):
            some = local[begin : begin + AT_ONCE]
            for i, body in zip(some, self._ranges([rows[i] for i in some]), strict=True):
                outcomes[i] = self._from_tar(rows[i]["url"], body, spool)
                for counts in (tally, self.turns.tally):
                    counts.row("", outcomes[i].picture.error, rows[i]["tar_size"], 0)
        return outcomes

    def _from_tar(self, url: str, body: bytes | str, spool: Spool) -> Outcome:
        """body: the bytes, or why there are none."""
        if isinstance(body, str):
            return Outcome(NOT_DOWNLOADED, Picture(body), 1)
        if listed := self.blocklist.url(url) or self.blocklist.host(host_in(url)):
            return Outcome(NOT_DOWNLOADED, Picture(listed), 1)
        return self._kept(self.pictures.unchanged(body), 1, spool)

    def _ranges(self, rows: list[Row]) -> Iterator[bytes | str]:
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


def _rows(table: pa.Table) -> list[Row]:
    columns = [_cells(column) for column in table.columns]
    return [
        dict(zip(table.column_names, cells, strict=True)) for cells in zip(*columns, strict=True)
    ]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python has it; a cell that Python cannot hold as Arrow writes it, or null."""
    try:
        return list(column.to_pylist())
    except Exception:  # a date beyond the year 9999, a time zone that nobody knows
        return [_cell(value) for value in column]


def _cell(value: pa.Scalar) -> Any:
    for read in (value.as_py, lambda: value.cast(pa.string()).as_py()):
        with suppress(Exception):
            return read()
    return None


def _trim() -> None:
    """Let C's allocator give back what a part has left in pieces: 25 MB in 80 000 rows else."""
    with suppress(AttributeError, OSError, TypeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _write(
    rows: list[Row], outcomes: dict[int, Outcome], spool: Spool, stream: BinaryIO
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


def _sample(row: Row, outcome: Outcome) -> Row:
    picture = outcome.picture
    return {
        "uid": row["uid"],
        "key": row["uid"],
        "status": outcome.status,
        "error_message": picture.error,
        **{name: getattr(picture, name) if outcome.status == SUCCESS else None for name in FACTS},
        "phash": picture.phash,
        "dhash": picture.dhash,
        "thumbnail": picture.thumbnail,
        "pixel_sha256": picture.pixel_sha256,
        "attempts": outcome.attempts,
    }


def _of_list(row: Row) -> Row:
    """What the list says of a pair, in the order of img2dataset's columns."""
    extra = {name: value for name, value in row.items() if name.startswith("in_")}
    return extra | {"caption": row["caption"], "url": row["url"]}


def _stats(samples: pa.Table, start: float, tally: Tally) -> Stats:
    """img2dataset's, then ours."""
    statuses = Counter(samples["status"].to_pylist())
    reasons = [
        SUCCESS if error is None else error for error in samples["error_message"].to_pylist()
    ]
    end = time.time()
    seconds = max(end - start, 1e-9)
    return {
        "count": samples.num_rows,
        "successes": statuses[SUCCESS],
        **{failure: statuses[failure] for failure in FAILURES},
        "duration": end - start,
        "start_time": start,
        "end_time": end,
        "status_dict": dict(Counter(reasons).most_common()),
        "bytes": tally.bytes,
        "rows_per_s": round(samples.num_rows / seconds, 1),
        "mb_per_s": round(tally.bytes / seconds / 1e6, 2),
        "slowest_hosts": tally.summary()["slowest_hosts"],
    }
