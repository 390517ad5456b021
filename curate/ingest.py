"""Ingest: a list of URLs -> urls, sightings.

Also scores_datacomp, where the list is DataComp's metadata. A list is files of any format of
`curate.sources`; one call takes it in as one batch, whose rows append parts to the tables. Two
passes, memory bounded:

1. every row gets its uid and its place, the hash of its URL, and is spilled to scratch disk by
   place;
2. group by group of places, equal uids become one row, those that `urls` has already are left out,
   and the rest is cut into parts by place, each sorted by uid. Neither the list's order nor its
   split into files changes a row.

Of rows with equal uid, one that has its image at hand wins, then the lowest source_uid and other
columns. Rows without a URL cannot be downloaded: they are skipped, with a count in the log. Parts
come out near `part_rows`, never exactly so; one without rows is not written. The parts' artifact is
`<batch>@<first part>+<parts>#<identity>`: it tells a later batch which places a part covers, so
that only parts that can hold a URL are read for it.

Cost per million rows (URL, caption, uid and 3 more columns; tests/bench/ingest.py): 5 CPU seconds,
250 MB of scratch disk, 43 MB of parquet; 10 million rows took 0.5 GB of memory. That stays so up to
64 million rows in a batch, from there one of 256 buckets has to fit: 1/256 of the batch.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import sources
from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.placement import ORIGIN, distinct, in_parts, known_before
from curate.progress import progress
from curate.sources.columns import SCORE, Kinds
from curate.sources.files import Source, find
from curate.sources.untyped import typed
from curate.spill import PLACE, Spill, hexadecimal, places
from schemas.configs import IngestConfig
from schemas.tables import SCORES, URLS, draw, scores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one call takes in. identity: hash of the files' names and sizes and of the config."""

    name: str
    identity: str

    def artifact(self, first: int, count: int) -> str:
        """What the parts of this batch say that they come from."""
        return f"{self.name}@{first}+{count}#{self.identity}"


def ingest(data: Dataset, config: IngestConfig) -> str:
    """Take a list in as one batch; returns the batch's name.

    A batch that is published already is not read again; one that was killed is done anew. Raises
    ValueError, naming the file and what was found, for a path without files, an empty list, a
    missing column or a file that cannot be read; and for a batch name used for another list.
    """
    files = find(config.path, config.format, _storage_options(data, config))
    batch = name_batch(files, config)
    if _published(data, batch):
        log.info("batch %s is in %s already: nothing to read", batch.name, data.root)
        return batch.name
    with tempfile.TemporaryDirectory(prefix="curate-ingest-") as scratch:
        spill = Spill(Path(scratch))
        kinds, counts = _spill(files, config, spill)
        found = _Found(data, spill, batch, Path(scratch))
        claims = [*found.write_sightings(config), *found.write_urls(config, kinds)]
    data.publish(*claims)
    log.info(
        "batch %s: %d rows read, %d without a URL, %d outside the sample, "
        "%d repeated, %d known before, %d new pairs",
        *(batch.name, counts["read"], counts["no url"], counts["outside"]),
        *(spill.rows - found.seen, found.seen - found.new, found.new),
    )
    return batch.name


def name_batch(files: Sequence[Source], config: IngestConfig) -> Batch:
    """The config's name for the batch, or the list's stem and 8 hex digits.

    They hash the names and sizes of the files and the config: what makes it another batch.
    """
    identity = digest([sorted((f.name, f.size) for f in files), config.claimed()])[:8]
    path = config.path if isinstance(config.path, str) else config.path[0]
    stem = path.rstrip("/").rpartition("/")[2].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-")[:60] or "batch"
    return Batch(config.batch or f"{plain}-{identity}", identity)


def _storage_options(data: Dataset, config: IngestConfig) -> dict[str, Any]:
    """The dataset's, where the list lies in the same kind of store."""
    path = config.path if isinstance(config.path, str) else "".join(config.path[:1])
    store, _, rest = str(data.root).partition("://")
    return data.storage_options if rest and path.startswith(f"{store}://") else {}


def _published(data: Dataset, batch: Batch) -> bool:
    for part in data.parts("sightings").values() if "sightings" in data.tables() else ():
        origin = ORIGIN.match(str(part.inputs.get("artifact", "")))
        if origin and origin["batch"] == batch.name:
            if origin["identity"] == batch.identity:
                return True
            raise ValueError(
                f"{data.root} has a batch {batch.name!r} already, made from other files or "
                "another config; give this one another `batch` name"
            )
    return False


# ---------------------------------------------------------------------- pass 1


def _spill(
    files: Sequence[Source], config: IngestConfig, spill: Spill
) -> tuple[Kinds, Counter[str]]:
    kinds: Kinds = {}
    counts: Counter[str] = Counter()
    total, before, percent, pending = max(1, sum(f.size for f in files)), 0, 0, 0
    with progress("ingest", 100, "%") as advance:
        for file in files:
            for rows in sources.read(file, config):
                counts["read"] += rows.table.num_rows
                pending += rows.table.num_rows
                _note(rows.table, rows.kinds, kinds)
                admitted = admit(rows.table, config, counts)
                if admitted.num_rows:
                    spill.add(admitted, file.url)
                if (now := int(100 * (before + rows.done * file.size) / total)) > percent:
                    advance(pending, now - percent)
                    percent, pending = now, 0
            before += file.size
    _check(files, config, counts)
    return kinds, counts


def _note(table: pa.Table, seen: Kinds, kinds: Kinds) -> None:
    for field in table.schema:
        if field.name.startswith("in_") and pa.types.is_string(field.type):
            kinds.setdefault(field.name, set()).update(seen.get(field.name, {"text"}))


def admit(table: pa.Table, config: IngestConfig, counts: Counter[str]) -> pa.Table:
    """The rows that have a URL and are in the sample, with clean url and caption, uid and place."""
    url = pc.fill_null(table["url"], "")
    there = pc.not_equal(pc.utf8_trim_whitespace(url), "")
    table = table.set_column(0, "url", url).filter(there)
    counts["no url"] += len(url) - table.num_rows
    if config.sample < 1.0:
        kept = [draw(config.seed, u) < config.sample for u in table["url"].to_pylist()]
        counts["outside"] += len(kept) - sum(kept)
        table = table.filter(pa.array(kept, pa.bool_()))
    if not table.num_rows:
        return table
    table = table.set_column(1, "caption", pc.fill_null(table["caption"], "")).combine_chunks()
    url, caption = table["url"].chunk(0), table["caption"].chunk(0)
    uid = hexadecimal(pc.binary_join_element_wise(url, caption, "\0"))
    return table.append_column("uid", uid).append_column(PLACE, pa.array(places(url)))


def _check(files: Sequence[Source], config: IngestConfig, counts: Counter[str]) -> None:
    where = files[0].url if len(files) == 1 else f"{files[0].url} and {len(files) - 1} more files"
    if not counts["read"]:
        raise ValueError(f"the list is empty: no row in {where}")
    if counts["no url"] == counts["read"]:
        raise ValueError(
            f"none of the {counts['read']} rows of {where} has a URL; is url_column the right one?"
        )
    if counts["no url"]:
        log.warning(
            "%d of %d rows of %s have no URL: skipped", counts["no url"], counts["read"], where
        )
    if counts["no url"] + counts["outside"] == counts["read"]:
        log.warning(
            "the sample of %g holds none of the %d rows of %s", config.sample, counts["read"], where
        )


# ---------------------------------------------------------------------- pass 2


class _Found:
    """The distinct pairs of a batch: uid, place, n, the row that stands for it, whether it is new.

    They lie on scratch disk by group of places; `seen` and `new` count them.
    """

    def __init__(self, data: Dataset, spill: Spill, batch: Batch, scratch: Path) -> None:
        self.data, self.spill, self.batch, self.scratch = data, spill, batch, scratch
        self.groups = spill.groups() if spill.rows else []
        self.seen = self.new = 0
        with progress("find new pairs", len(self.groups), "buckets") as advance:
            for i, group in enumerate(self.groups):
                pairs = distinct(spill.read(group))
                pairs = pairs.append_column("new", pc.invert(known_before(data, pairs)))
                self._store(i, pairs)
                self.seen += pairs.num_rows
                self.new += pc.sum(pairs["new"]).as_py() or 0
                advance(pairs.num_rows)

    def _store(self, group: int, pairs: pa.Table) -> None:
        path = str(self.scratch / f"pairs-{group}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, pairs.schema) as writer:
            writer.write_table(pairs)

    def _pairs(self, group: int) -> pa.Table:
        with pa.OSFile(str(self.scratch / f"pairs-{group}.arrow"), "rb") as stream:
            return pa.ipc.open_file(stream).read_all()

    def _rows(self) -> Iterator[pa.Table]:
        for i, group in enumerate(self.groups):
            pairs = self._pairs(i)
            yield self.spill.read(group).take(pairs.filter(pairs["new"])["row"])

    def write_sightings(self, config: IngestConfig) -> list[Claim]:
        """Every pair of the batch, known ones too; an empty part where the sample holds none."""
        first, count = _next(self.data, "sightings"), max(1, -(-self.seen // config.part_rows))
        artifact = self.batch.artifact(first, count)
        claim = self.data.claim("sightings", config, artifact=artifact, append=True, revisable=True)
        missing = set(self.data.missing(claim, range(first, first + count)))
        tables = (self._pairs(i).select(["uid", PLACE, "n"]) for i in range(len(self.groups)))
        none = pa.table({"uid": pa.array([], pa.string()), "n": pa.array([], pa.int64())})
        for part, rows in in_parts(tables, count) if self.seen else [(0, none)]:
            if first + part in missing:
                self.data.write(claim, first + part, sightings_table(rows, self.batch.name, config))
        return [claim]

    def write_urls(self, config: IngestConfig, kinds: Kinds) -> list[Claim]:
        """The new pairs, and their scores where the list has some."""
        if not self.new:
            return []
        first, count = _next(self.data, "urls"), -(-self.new // config.part_rows)
        makers: dict[str, Callable[[pa.Table], pa.Table]]
        makers = {"urls": partial(urls_table, kinds=kinds)}
        if any(name.startswith(SCORE) for name in self.spill.names):
            makers["scores_datacomp"] = scores_table
        claim = partial(self.data.claim, config=config, append=True, revisable=True)
        claims = [claim(t, artifact=self.batch.artifact(first, count)) for t in makers]
        missing = [set(self.data.missing(c, range(first, first + count))) for c in claims]
        with progress("write", count) as advance:
            for part, unsorted in in_parts(self._rows(), count):
                rows = unsorted.sort_by("uid").combine_chunks()
                for c, make, wanted in zip(claims, makers.values(), missing, strict=True):
                    if first + part in wanted:
                        self.data.write(c, first + part, make(rows))
                advance(rows.num_rows)
        return claims


def _next(data: Dataset, table: str) -> int:
    return max(data.parts(table), default=-1) + 1 if table in data.tables() else 0


def sightings_table(rows: pa.Table, batch: str, config: IngestConfig) -> pa.Table:
    """The columns of `sightings`."""
    rows = rows.sort_by("uid").combine_chunks()
    names = {"batch": batch, "source": config.source}
    same = {k: pa.repeat(pa.scalar(v, pa.string()), rows.num_rows) for k, v in names.items()}
    return pa.table({"uid": rows["uid"], **same, "n": rows["n"]})


def urls_table(rows: pa.Table, kinds: Kinds) -> pa.Table:
    """The columns of `urls`: the contract's, then in_<name> in the order of their names."""
    extra = sorted(n for n in rows.column_names if n.startswith("in_"))
    columns = {
        f.name: rows[f.name] if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type)
        for f in URLS
    }
    return typed(pa.table(columns | {n: rows[n] for n in extra}), kinds)


def scores_table(rows: pa.Table) -> pa.Table:
    """The columns of `scores_datacomp`; rows of files without scores say so in `error`."""
    found = {n.removeprefix(SCORE): rows[n] for n in rows.column_names if n.startswith(SCORE)}
    dims = {n: found[n].type.list_size for n in ("image_emb", "text_emb") if n in found}
    unknown = pc.and_(*(pc.is_null(found[n]) for n in SCORES["datacomp"].names))
    error = pc.if_else(unknown, pa.scalar("no scores in the list"), pa.scalar(None, pa.string()))
    columns = {"uid": rows["uid"], "caption_id": rows["uid"], **found, "error": error}
    schema = scores("datacomp", dims)
    return pa.table([columns[name] for name in schema.names], schema=schema)
