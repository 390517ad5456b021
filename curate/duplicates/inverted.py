"""Inverted file: rows of fixed size in the order of their clusters, so that a range of clusters is
one range of bytes per file, on any fsspec store.

    <digest>.rows     the rows of some parts, sorted by cluster, then uid
    <digest>.first    int64 (clusters + 1): row at which each cluster begins

It is what a shuffle leaves: a file per group of parts is written once, and each bucket of clusters
reads its range of every file, so that all buckets together read the rows once. Files are named by
the state of their parts: a later search writes the groups that are new or have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate import storage
from curate.claims import digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits.clusters import originals
from schemas.configs import Workers

GROUP_BYTES = 512 << 20  # of float16 embeddings in one file: what its writer has in memory
CHUNK = 1 << 15  # rows that are put in order at a time
Records = np.ndarray[Any, np.dtype[np.void]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
UID = "S32"
# a member of a star that an earlier search has found, under the member's cluster
STAR = np.dtype([("cluster", "<i4"), ("leader", UID), ("member", UID), ("distance", "<f4")])


def row_type(dims: int) -> np.dtype[np.void]:
    """A pair: uid, cluster, part of samples, distance from the centroid, its embedding."""
    return np.dtype(
        [
            ("uid", UID),
            ("cluster", "<i4"),
            ("part", "<i4"),
            ("distance", "<f4"),
            ("row", "<f2", (dims,)),
        ]
    )


@dataclass(frozen=True)
class Inverted:
    """Some files of one kind of row. clusters: how many there are."""

    data: Dataset
    folder: str
    names: tuple[str, ...]
    rows: np.dtype[np.void]
    clusters: int

    def sizes(self) -> Indices:
        """Rows of each cluster."""
        total = np.zeros(self.clusters, dtype=np.int64)
        for name in self.names:
            raw = self.data.fs.cat_file(f"{self.folder}/{name}.first")
            total += np.diff(np.frombuffer(raw, "<i8"))
        return total

    def read(self, ranges: Sequence[tuple[int, int]]) -> Records:
        """The rows of these ranges of clusters, file by file."""
        spans = [(name, *self._span(name, *r)) for name in self.names for r in ranges]
        found = np.empty(sum(end - begin for _, begin, end in spans), dtype=self.rows)
        at, size = 0, self.rows.itemsize
        for name, begin, end in spans:
            if begin < end:
                path = f"{self.folder}/{name}.rows"
                raw = self.data.fs.cat_file(path, start=begin * size, end=end * size)
                found[at : at + end - begin] = np.frombuffer(raw, self.rows)
                at += end - begin
        return found

    def _span(self, name: str, low: int, high: int) -> tuple[int, int]:
        path = f"{self.folder}/{name}.first"
        raw = self.data.fs.cat_file(path, start=8 * low, end=8 * (high + 1))
        first = np.frombuffer(raw, "<i8")
        return int(first[0]), int(first[-1])

    def write(self, name: str, blocks: Iterable[Records]) -> int:
        """Store a file, whose rows come in the order of their clusters; returns how many."""
        sizes = np.zeros(self.clusters, dtype=np.int64)
        with storage.writing(self.data.fs, f"{self.folder}/{name}.rows") as stream:
            for block in blocks:
                stream.write(block.tobytes())
                sizes += np.bincount(block["cluster"], minlength=self.clusters)
        first = np.concatenate([[0], np.cumsum(sizes)]).astype("<i8")
        storage.replace(self.data.fs, f"{self.folder}/{name}.first", first.tobytes())
        return int(first[-1])

    def missing(self) -> list[int]:
        """Numbers of the files that are not there yet."""
        there = set(storage.names(self.data.fs, self.folder))
        return [n for n, name in enumerate(self.names) if f"{name}.first" not in there]


def tidy(data: Dataset, folder: str, *used: Inverted) -> None:
    """Remove what no search will read again, other folders beside `folder` included."""
    keep = {f"{name}.{kind}" for one in used for name in one.names for kind in ("rows", "first")}
    above, own = folder.rsplit("/", 1)
    stale = [f"{folder}/{n}" for n in storage.names(data.fs, folder) if n not in keep]
    stale += [f"{above}/{n}" for n in storage.names(data.fs, above) if n != own]
    for path in stale:
        data.fs.rm(path, recursive=True)


# ------------------------------------------------------------------------------------ the pairs


def of_pairs(
    data: Dataset,
    folder: str,
    codes: str,
    scores: str,
    column: str,
    shape: tuple[int, int],
    workers: Workers | int,
) -> Inverted:
    """The pool's pairs that have a cluster, their files written where they are missing.

    codes: the table with uid, cluster and distance. shape: (clusters, d) of the centroids.
    """
    clusters, dims = shape
    groups = _groups(data, codes, max(1, GROUP_BYTES // (2 * dims)))
    parts = data.parts(codes)
    names = [digest([[p, parts[p].content, dict(parts[p].inputs)] for p in g]) for g in groups]
    made = Inverted(data, folder, tuple(names), row_type(dims), clusters)

    def build() -> Work:
        def work(number: int) -> Stats:
            rows = _rows(made, groups[number], codes, scores, column)
            order = np.lexsort((rows["uid"], rows["cluster"]))
            blocks = (rows[order[at : at + CHUNK]] for at in range(0, len(order), CHUNK))
            return {"rows": made.write(names[number], blocks)}

        return work

    run_parts(build, made.missing(), workers, label="sort by cluster")
    return made


def _groups(data: Dataset, table: str, most: int) -> list[list[int]]:
    """Neighbouring parts that have at most so many rows together, or one part that has more."""
    groups: list[list[int]] = []
    held = most
    for part, entry in sorted(data.parts(table).items()):
        if not groups or held + entry.rows > most:
            groups.append([])
            held = 0
        groups[-1].append(part)
        held += entry.rows
    return groups


def _rows(made: Inverted, parts: Sequence[int], codes: str, scores: str, column: str) -> Records:
    found = [_part(made, part, codes, scores, column) for part in parts]
    rows = np.empty(sum(map(len, found)), dtype=made.rows)
    at = 0
    while found:  # each is let go as it is copied
        some = found.pop(0)
        rows[at : at + len(some)] = some
        at += len(some)
    return rows


def _part(made: Inverted, part: int, codes: str, scores: str, column: str) -> Records:
    import pyarrow.compute as pc

    known = made.data.read(codes, part, ["uid", "cluster", "distance"])
    known = known.filter(known["cluster"].is_valid())
    have = originals(made.data, scores, part, column)
    have = have.take(pc.index_in(known["uid"], have["uid"].combine_chunks()))
    rows = np.empty(known.num_rows, dtype=made.rows)
    rows["uid"] = np.array(known["uid"].to_pylist(), dtype=UID)
    rows["cluster"], rows["distance"] = known["cluster"].to_numpy(), known["distance"].to_numpy()
    rows["part"] = part
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in have[column].chunks]
    rows["row"] = np.concatenate(values or [[]]).reshape(rows["row"].shape)
    return rows


# ------------------------------------------------------------------------------------ the stars

_MEMBERS = """
SELECT c.cluster, m.uid AS leader, m.other_uid AS member, m.distance
FROM {edges} m JOIN {codes} c ON c.uid = m.other_uid
WHERE m.member AND c.cluster IS NOT NULL ORDER BY c.cluster, m.other_uid, m.uid
"""


def of_stars(data: Dataset, folder: str, codes: str, edges: str, clusters: int) -> Inverted:
    """The members of the stars that the table `edges` has: sorted out of core by DuckDB."""
    from curate.query import connect, quote

    name = digest(data.fingerprint([codes, edges]))
    made = Inverted(data, folder, (name,), STAR, clusters)
    if made.missing():
        con = connect(data, only=[codes, edges])
        try:
            found = con.sql(_MEMBERS.format(edges=quote(edges), codes=quote(codes)))
            made.write(name, (_stars(batch) for batch in found.to_arrow_reader(CHUNK)))
        finally:
            con.close()
    return made


def _stars(batch: Any) -> Records:
    rows = np.empty(batch.num_rows, dtype=STAR)
    for name in ("cluster", "distance"):
        rows[name] = batch.column(name).to_numpy(zero_copy_only=False)
    for name in ("leader", "member"):
        rows[name] = np.array(batch.column(name).to_pylist(), dtype=UID)
    return rows
