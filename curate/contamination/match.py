"""Match: which pairs of `samples` an evaluation set contaminates, part by part: matches_<name>.

A pair matches an item
- by `phash`, where its hash and thumbnail are within `radius` and `max_rms` of a variant of it (the
  distance is the hashes', in bits; of equal ones the nearer thumbnail counts),
- by `embedding`, where the cosine is at least `min_similarity` (the distance is 1 - cosine),
- by `caption`, where the normalised captions are equal (the distance is 0).
A pair has one row per method: the nearest item, of equally near ones the lowest key.

A part depends on itself and on the set alone, so a rerun computes what is new or changed. Per
million pairs the hashes of 50 000 items (some 4 million variants) take about 3 CPU minutes; a
worker holds some 120 bytes a variant, thumbnails stay in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.claims import Claim
from curate.contamination.artifact import normalised, prepare, unit_of
from curate.contamination.cross import Known
from curate.contamination.variants import says_something
from curate.dataset import Dataset
from curate.duplicates.hamming import Hashes, Indices
from curate.duplicates.leaders import BYTES
from curate.engine import Stats, run_parts, workers_for
from curate.storage import as_local
from models.kmeans import unit_rows
from models.nearest import Nearest
from schemas.configs import EvaluationItems, Workers
from schemas.tables import MATCHES

PREFIX = "matches_"
PAIRS = 1 << 16  # of thumbnails that are compared at a time

Found = tuple[str, int, float]  # uid, number of the item, distance


def decontaminate(
    data: Dataset, configs: Sequence[EvaluationItems], workers: Workers | int = 0
) -> list[str]:
    """Match the downloaded pairs with each evaluation set; returns the names of the tables.

    Tables of sets that are no longer named are retired. Workers are used from a million pairs on,
    or where embeddings are compared. Raises ValueError where there is no `samples`, for a set that
    is none or of which no image can be used, and for embeddings that cannot be had.
    """
    data.parts("samples")
    tables = [f"{PREFIX}{config.name}" for config in configs]
    data.retire(*(t for t in data.tables() if t.startswith(PREFIX) and t not in tables))
    for table, config in zip(tables, configs, strict=True):
        _match(data, table, config, workers)
    return tables


def _match(data: Dataset, table: str, config: EvaluationItems, workers: Workers | int) -> None:
    of = ["samples", *(["urls"] if config.caption_words is not None else [])]
    of += [f"scores_{config.embeddings}"] if config.embeddings else []
    if table in data.tables():
        data.claim(table, config)  # a changed config is refused before the set is read
    key = prepare(data, config)
    claim = data.claim(table, config, of=of, artifact=key)
    where = workers if config.embeddings else workers_for(data.rows("samples"), workers)
    run_parts(
        lambda: _Worker(data, claim, config),
        data.missing(claim),
        where,
        label=f"match {config.name}",
        model=config.embeddings is not None,
    )
    data.publish(claim)


class _Worker:
    """Holds a set; matches a part with it."""

    def __init__(self, data: Dataset, claim: Claim, config: EvaluationItems) -> None:
        self.data, self.claim = data, claim
        self.keep = ExitStack()
        path = f"{data.path}/_artifacts/{unit_of(config)}/{claim.artifact}"
        folder = self.keep.enter_context(as_local(data.fs, path))
        self.items = pq.read_table(folder / "items.parquet")["item"]
        self.methods: dict[str, Callable[[pa.Table, int], list[Found]]] = {
            "phash": _ByPhash(folder, config)
        }
        if config.embeddings:
            self.methods["embedding"] = _ByEmbedding(data, folder, config)
        if config.caption_words is not None:
            self.methods["caption"] = _ByCaption(data, folder)

    def __call__(self, part: int) -> Stats:
        samples = self.data.read("samples", part, ["uid", "status", "phash", "thumbnail"])
        samples = samples.filter(pc.equal(samples["status"], "success"))
        found = [
            (uid, self.items[item].as_py(), distance, method)
            for method, match in self.methods.items()
            for uid, item, distance in match(samples, part)
        ]
        found.sort(key=lambda row: (row[0], row[3]))
        rows = [dict(zip(MATCHES.names, row, strict=True)) for row in found]
        self.data.write(self.claim, part, pa.Table.from_pylist(rows, MATCHES))
        return {"rows": samples.num_rows, "matches": len(found)}

    def close(self) -> None:
        self.keep.close()


class _ByPhash:
    """Hash and thumbnail within the radius and the rms of a variant's."""

    def __init__(self, folder: Path, config: EvaluationItems) -> None:
        every, places, self.thumbnails, owners = (
            np.load(folder / f"{name}.npy", mmap_mode="r" if name == "thumbnails" else None)
            for name in ("hashes", "places", "thumbnails", "owners")
        )
        hashes, self.first = np.unique(every, return_index=True)
        self.first = np.append(self.first, len(every))
        self.places, self.owners = places, owners
        self.known, self.max_rms = Known(hashes, config.radius), config.max_rms

    def __call__(self, samples: pa.Table, part: int) -> list[Found]:
        rows, hashes, thumbnails = _hashed(samples)
        best = np.empty((0, 4), np.int64)  # row, bits, squared difference, item; the best of a row
        for row, variant, bits in self._near(hashes):
            place = self.places[variant]
            squares = _squares(thumbnails[row], self.thumbnails[place])
            near = squares <= self.max_rms**2 * BYTES
            found = np.stack([row, bits, squares, self.owners[place]], axis=1)[near]
            best = _firsts(np.concatenate([best, found]))
        uids = samples["uid"]
        return [
            (uids[rows[row]].as_py(), item, float(bits)) for row, bits, _, item in best.tolist()
        ]

    def _near(self, hashes: Hashes) -> Iterator[tuple[Indices, Indices, Indices]]:
        """Each row with each variant whose hash is near, some at a time, and the bits between."""
        asked, back = np.unique(hashes, return_inverse=True)
        rows = np.argsort(back, kind="stable")
        first = np.searchsorted(back[rows], np.arange(len(asked) + 1))
        i, j = self.known.near(asked)
        mine, theirs = first[i + 1] - first[i], self.first[j + 1] - self.first[j]
        ends = np.cumsum(mine * theirs)
        for begin in range(0, int(ends[-1]) if len(ends) else 0, PAIRS):
            n = np.arange(begin, min(begin + PAIRS, int(ends[-1])))
            k = np.searchsorted(ends, n, side="right")
            one, other = np.divmod(n - (ends[k] - mine[k] * theirs[k]), theirs[k])
            row, variant = rows[first[i[k]] + one], self.first[j[k]] + other
            yield row, variant, self._bits(hashes[row], j[k])

    def _bits(self, hashes: Hashes, known: Indices) -> Indices:
        bits: Indices = np.bitwise_count(hashes ^ self.known.hashes[known]).astype(np.int64)
        return bits


def _hashed(samples: pa.Table) -> tuple[Indices, Hashes, np.ndarray[Any, np.dtype[np.uint8]]]:
    """Of the rows with a hash that says something and a thumbnail: where they are, and both."""
    pairs = zip(samples["phash"].to_pylist(), samples["thumbnail"].to_pylist(), strict=True)
    kept = [
        (row, hashed, small)
        for row, (hashed, small) in enumerate(pairs)
        if hashed is not None
        and small is not None
        and len(small) == BYTES
        and says_something(hashed)
    ]
    rows = np.array([row for row, _, _ in kept], np.int64)
    hashes = np.array([hashed for _, hashed, _ in kept], np.uint64)
    pixels = np.frombuffer(b"".join(small for _, _, small in kept), np.uint8)
    return rows, hashes, pixels.reshape(-1, BYTES)


def _squares(one: Any, other: Any) -> Indices:
    """Sums of squared differences of thumbnails (n, 192): rms**2 * 192."""
    difference = one.astype(np.int32) - other
    sums: Indices = np.einsum("ij,ij->i", difference, difference).astype(np.int64)
    return sums


def _firsts(rows: Indices) -> Indices:
    """The lowest of the rows (n, columns) of each value in the first column."""
    rows = rows[np.lexsort(rows.T[::-1])]
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


class _ByEmbedding:
    """A cosine of at least `min_similarity`."""

    def __init__(self, data: Dataset, folder: Path, config: EvaluationItems) -> None:
        self.data, self.table = data, f"scores_{config.embeddings}"
        self.least = config.min_similarity
        self.owners = np.load(folder / "embedded.npy")
        points = np.load(folder / "embeddings.npy")
        self.nearest = Nearest(points) if len(points) else None

    def __call__(self, samples: pa.Table, part: int) -> list[Found]:
        scored = self.data.read(self.table, part, ["uid", "image_emb"])
        rows, known = unit_rows(scored["image_emb"])
        downloaded = pc.is_in(scored["uid"], samples["uid"].combine_chunks()).to_numpy()
        at = np.flatnonzero(known & downloaded & rows.any(axis=1))
        if self.nearest is None or not len(at):
            return []
        place, cosine = self.nearest(rows[at])
        return [
            (scored["uid"][row].as_py(), int(self.owners[p]), 1 - float(c))
            for row, p, c in zip(at.tolist(), place, cosine, strict=True)
            if c >= self.least
        ]


class _ByCaption:
    """An equal caption, once normalised."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        self.data = data
        known = pq.read_table(folder / "captions.parquet").to_pydict()
        self.items = dict(zip(known["caption"], known["item"], strict=True))

    def __call__(self, samples: pa.Table, part: int) -> list[Found]:
        urls = self.data.read("urls", part, ["uid", "caption"]).to_pydict()
        downloaded = set(samples["uid"].to_pylist())
        found = [
            (uid, self.items.get(normalised(caption)))
            for uid, caption in zip(urls["uid"], urls["caption"], strict=True)
            if caption is not None and uid in downloaded
        ]
        return [(uid, item, 0.0) for uid, item in found if item is not None]
