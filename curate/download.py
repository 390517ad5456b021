"""Download: urls -> samples, images.

Workers fetch, decode and pack a part each (shard_download.py); this is which parts, which
generation of them, and what is told about it. A part without a single image is written, reported
and tried again by the next run: when all of ten thousand fail, the web is rarely at fault.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from curate import storage, tars
from curate.claims import Claim
from curate.dataset import Dataset
from curate.engine import Shared, run_parts, shared
from curate.shard_download import FAILURES, SUCCESS, ShardDownloader, Stats
from curate.versions import CONTENT
from curate.web.dispatch import Dispatcher
from curate.web.fetch import STALLED
from schemas.configs import DownloadConfig, Workers
from schemas.tables import SAMPLES

log = logging.getLogger(__name__)
# of a worker, some 20 kB each: the last URLs of a part may wait long, the others go on
ROWS_IN_HAND = 10_000
PARTS_IN_HAND = (2, 16)  # of a worker, at least and at most: each has a thread
SUCCESSES = "successes"  # in the notes of a part
TOLD = 5  # parts named in a warning


def download(
    data: Dataset,
    config: DownloadConfig,
    workers: Workers | int = 0,
    *,
    retry_failed: bool = False,
    statuses: Sequence[str] = (),
) -> dict[str, Any]:
    """Download what `samples` lacks, one part per task, and publish; returns what came of it.

    Parts that have no image at all count as lacking: their rows are tried once more.
    retry_failed: try the failed rows of all parts once more. A row that now succeeds makes its
    part's next generation, with a small tar of the new images. Where none does, a generation that
    counts as the older one keeps the attempts: nothing that was computed from it is lost.
    statuses: which failures to retry: failed_to_download, failed_to_resize, or an error message,
    with * for any text ("timed out", "HTTP Error 5*"); (): all.
    Raises ValueError for statuses that cannot be retried, and where `samples` was made with another
    config.
    Returns rows, successes, bytes, seconds, errors, slowest_hosts and parts_without_images.
    Cost per million JPEGs stored at 256 x 256, all told: 3 600 CPU seconds of 500 x 400, 11 000 of
    2 000 x 1 500.
    """
    if SUCCESS in statuses:
        raise ValueError(
            f"statuses has {SUCCESS!r}: only failures can be retried, {' and '.join(FAILURES)}, "
            "or error messages such as 'timed out' or 'HTTP Error 5*'"
        )
    if statuses and not retry_failed:
        raise ValueError("statuses says which failed rows to try again: retry_failed is False")
    claim = data.claim("samples", config, of=["urls"])
    missing = data.missing(claim)
    there = sorted(set(data.parts("urls")) - set(missing))
    if there:  # what a killed run has left: a retry begins with what that one had gained
        data.publish(claim)
    again = there if retry_failed else _without_images(data, there)
    report = _worked(data, config, claim, workers, missing, again, tuple(statuses) or FAILURES)
    data.publish(claim)
    barren = _without_images(data, [*missing, *again])
    if barren:
        _warn(data, barren)
    return report | {"parts_without_images": barren}


def _worked(
    data: Dataset,
    config: DownloadConfig,
    claim: Claim,
    workers: Workers | int,
    missing: list[int],
    again: list[int],
    retried: tuple[str, ...],
) -> dict[str, Any]:
    """Let the workers do these parts; returns the report of the desk that they share."""
    todo = sorted([*missing, *again])
    rows = sum(data.parts("urls")[p].rows for p in missing) + sum(_failed(data, p) for p in again)
    with shared(
        partial(Dispatcher, config.per_host, config.per_host_rate), workers if todo else 0
    ) as desk:
        run_parts(
            partial(_Worker, data, config, claim, desk, frozenset(again), retried),
            todo,
            workers,
            label="download",
            in_hand=parts_in_hand(data, todo),
            live=partial(_how_far, desk, rows),
        )
        report: dict[str, Any] = desk.call("report")
    return report


def parts_in_hand(data: Dataset, parts: Sequence[int]) -> int:
    """How many of these parts a worker has under way at once.

    Each host that does not answer holds a part for its whole time-out: with few small parts in hand
    a worker would wait for such hosts in every one, with all of them at once it waits once.
    """
    largest = max((data.parts("urls")[part].rows for part in parts), default=1)
    least, most = PARTS_IN_HAND
    return max(least, min(ROWS_IN_HAND // max(largest, 1), most))


def _how_far(desk: Shared, rows: int) -> tuple[float, str]:
    """For the progress line: the share of the rows that have ended, and how."""
    report = desk.call("report")
    return min(report["rows"] / max(rows, 1), 1.0), report["line"]


def _without_images(data: Dataset, parts: Sequence[int]) -> list[int]:
    """Those of these parts that have rows and no success."""
    known = data.parts("samples") if "samples" in data.tables() else {}
    found = ((p, known[p]) for p in parts if p in known)
    return sorted(p for p, entry in found if entry.rows and entry.notes.get(SUCCESSES) == 0)


def _failed(data: Dataset, part: int) -> int:
    entry = data.parts("samples")[part]
    return entry.rows - entry.notes.get(SUCCESSES, 0)


def _warn(data: Dataset, parts: list[int]) -> None:
    """Name parts of which nothing came, with their commonest error."""
    for part in parts[:TOLD]:
        errors = data.read("samples", part, ["error_message"])["error_message"].value_counts()
        commonest = max(errors.to_pylist(), key=lambda c: c["counts"])
        log.warning(
            "download: part %08d has no image: %d of its %d rows say %r; the next run tries again",
            *(part, commonest["counts"], data.parts("samples")[part].rows, commonest["values"]),
        )
    if len(parts) > TOLD:
        log.warning("download: %d parts have no image", len(parts))


@dataclass
class _Worker:
    """Once per worker; then called with part numbers."""

    data: Dataset
    config: DownloadConfig
    claim: Claim
    desk: Shared
    again: frozenset[int]
    retried: tuple[str, ...]

    def __post_init__(self) -> None:
        self.downloader = ShardDownloader(self.config, self.desk)

    def close(self) -> None:
        self.downloader.close()

    def __call__(self, part: int) -> dict[str, float]:
        return self._retry(part) if part in self.again else self._first(part)

    def _first(self, part: int) -> dict[str, float]:
        if self.data.has(self.claim, part):  # by a worker that died before it could say so
            return {}
        with tempfile.TemporaryFile() as tar:
            samples, stats = self.downloader(self.data.read("urls", part), tar)
            rows = _placed(self.data, part, samples, stats, tar)
            self.data.write(self.claim, part, rows, notes={SUCCESSES: stats["successes"]})
        return _counts(part, stats)

    def _retry(self, part: int) -> dict[str, float]:
        data, old = self.data, self.data.read("samples", part)
        failed = old.filter(_matching(old, self.retried))["uid"]
        urls = data.read("urls", part)
        rows = urls.filter(pc.is_in(urls["uid"], failed))
        if not rows.num_rows:
            return {}
        with tempfile.TemporaryFile() as tar:
            samples, stats = self.downloader(rows, tar)
            merged = merge_generations(old, _placed(data, part, samples, stats, tar))
        came = pc.sum(pc.equal(merged["status"], SUCCESS)).as_py()
        same = {} if stats["successes"] else {CONTENT: data.parts("samples")[part].content}
        data.write(self.claim, part, merged, again=True, notes={SUCCESSES: came, **same})
        return _counts(part, stats)


def _matching(samples: pa.Table, retried: Sequence[str]) -> pa.Array:
    """Which failed rows have one of these statuses or error messages."""
    pairs = zip(samples["status"].to_pylist(), samples["error_message"].to_pylist(), strict=True)
    known: dict[tuple[str, str | None], bool] = {}
    for pair in (wanted := list(pairs)):
        if pair not in known:
            status, error = pair
            known[pair] = status != SUCCESS and any(
                status == r or fnmatchcase(error or "", r) for r in retried
            )
    return pa.array([known[pair] for pair in wanted], pa.bool_())


def _placed(data: Dataset, part: int, samples: pa.Table, stats: Stats, tar: BinaryIO) -> pa.Table:
    """`samples` with the name of the shard that its tar got, and the stats beside that.

    A retry without new images has no tar.
    """
    name = f"{part:08d}.g{data.next_generation('samples', part)}.tar"
    if stats["successes"] or name.endswith(".g0.tar"):
        tar.seek(0)
        with data.new_tar(part) as (name, stream):
            shutil.copyfileobj(tar, stream, 1 << 20)
    stem = name.removesuffix(".tar")
    storage.replace(data.fs, data.tar_path(f"{stem}_stats.json"), tars.dumps(stats))
    shard = pc.if_else(pc.equal(samples["status"], SUCCESS), name, pa.scalar(None, pa.string()))
    return samples.append_column("shard", shard).select(SAMPLES.names)


def _counts(part: int, stats: Stats) -> dict[str, float]:
    if stats[STALLED]:
        log.warning(
            "download: part %08d stalled; %d URLs were left behind, such as %s",
            *(part, len(stats[STALLED]), ", ".join(stats[STALLED][:TOLD])),
        )
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
