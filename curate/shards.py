"""Shards: the image tars beside `samples`: read by byte range and decode, in threads while others
compute.

What is held at once is bounded by its bytes: a run has at most RUN_BYTES of pixels (or one image),
one run is in use and at most AHEAD_BYTES of runs (or one) are on their way.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import pyarrow as pa

from curate.dataset import Dataset
from models.base import Batch, Image

T = TypeVar("T")
R = TypeVar("R")
Pixels = tuple[Image | None, str | None, dict[str, Any]]  # or why not; what was made of them
UNSEEN: Pixels = (None, "not decoded", {})

GAP = 1 << 20  # two images closer than this are read as one range
THREADS = min(16, os.cpu_count() or 1)  # that decode; Pillow and OpenCV let the others run
RUN_BYTES = 1 << 27  # of decoded pixels: 512 images of 256 x 256, two of 4096 x 4096
AHEAD = 2  # runs that are read and decoded while another is used
AHEAD_BYTES = 2 * RUN_BYTES
RGBA = 4  # bytes of a pixel, at most
UNKNOWN = RGBA << 20  # bytes taken for an image whose size no one wrote down
NEEDED = ("uid", "status", "shard", "offset", "width", "height")
OF_SAMPLES = ("original_width", "original_height", "sha256", "size")  # that scorers may ask for


def ranges(samples: pa.Table) -> dict[str, list[tuple[int, int, int]]]:
    """By shard: (offset, size, row) of the rows that have an image, in the shard's order."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    columns = (samples[name].to_pylist() for name in ("shard", "offset", "size"))
    for row, (shard, offset, size) in enumerate(zip(*columns, strict=True)):
        if shard is not None:
            found.setdefault(shard, []).append((offset, size, row))
    return {shard: sorted(entries) for shard, entries in sorted(found.items())}


def read_bytes(data: Dataset, samples: pa.Table) -> list[bytes | None]:
    """The encoded image of every row, or None where it has none. Neighbours are read in one
    request.
    """
    images: list[bytes | None] = [None] * samples.num_rows
    for shard, entries in ranges(samples).items():
        path = data.tar_path(shard)
        for run in _runs(entries):
            begin, end = run[0][0], run[-1][0] + run[-1][1]
            block = data.fs.cat_file(path, start=begin, end=end)
            for offset, size, row in run:
                images[row] = block[offset - begin : offset - begin + size]
    return images


def _runs(entries: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    run: list[tuple[int, int, int]] = []
    for entry in entries:
        if run and entry[0] - (run[-1][0] + run[-1][1]) > GAP:
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def decode_or_error(encoded: bytes | None) -> tuple[Image | None, str | None]:
    """(pixels, None) or (None, why not)."""
    from models.decode import decode

    if encoded is None:
        return None, "no image"
    try:
        return decode(encoded), None
    except ValueError as error:
        return None, str(error)


class Reader:
    """A part's downloaded pairs by runs of rows: their bytes are read once and decoded once, in
    threads that end with the `with` block.

    keep: which rows of the part; None: all that were downloaded. columns: more columns, aligned
    with the part's rows. decode: whether anyone looks at pixels. prepare: column -> what is made of
    each image's pixels in the thread that decoded it. peek: column -> what is read from the file
    that they were decoded from, likewise.
    """

    def __init__(
        self,
        data: Dataset,
        part: int,
        *,
        keep: Sequence[bool] | None = None,
        columns: Mapping[str, list[Any]] | None = None,
        decode: bool = True,
        prepare: Mapping[str, Callable[[Image], Any]] | None = None,
        peek: Mapping[str, Callable[[bytes], Any]] | None = None,
    ) -> None:
        self.data, self.decode = data, decode
        self.prepare, self.peek = prepare or {}, peek or {}
        self.samples = data.read("samples", part, [*NEEDED, *OF_SAMPLES])
        urls = data.read("urls", part, ["uid", "caption"]).to_pydict()
        self.captions = dict(zip(urls["uid"], urls["caption"], strict=True))
        self.columns = {f"samples__{n}": self.samples[n].to_pylist() for n in OF_SAMPLES}
        self.columns |= columns or {}
        downloaded = [s == "success" for s in self.samples["status"].to_pylist()]
        self.rows = [i for i, ok in enumerate(downloaded) if ok and (keep is None or keep[i])]
        sides = (self.samples[name].to_pylist() for name in ("width", "height"))
        self.sizes = [RGBA * w * h if w and h else UNKNOWN for w, h in zip(*sides, strict=True)]
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.threads.shutdown()

    def runs(self, size: int) -> list[list[int]]:
        """All rows in runs of at most `size`, shorter where their pixels are many. Of no rows one
        empty run: its reader still learns what columns there would be.
        """
        found: list[list[int]] = [[]]
        held = 0
        for row in self.rows:
            price = self.cost([row])
            if len(found[-1]) == size or (found[-1] and held + price > RUN_BYTES):
                found.append([])
                held = 0
            found[-1].append(row)
            held += price
        return found

    def cost(self, rows: Sequence[int]) -> int:
        """Bytes of these rows' pixels, at most."""
        return sum(self.sizes[row] for row in rows) if self.decode else 0

    def read(self, rows: Sequence[int]) -> Batch:
        """One run."""
        samples = self.samples.take(pa.array(rows, pa.int64()))
        uids = samples["uid"].to_pylist()
        pixels = [UNSEEN] * len(rows)
        if self.decode:
            pixels = list(self.threads.map(self._pixels, read_bytes(self.data, samples)))
        columns = {name: [values[r] for r in rows] for name, values in self.columns.items()}
        for name in (*self.prepare, *self.peek):
            columns[name] = [made.get(name) for _, _, made in pixels]
        return Batch(
            uids=uids,
            caption_ids=list(uids),
            captions=[self.captions[u] for u in uids],
            images=[image for image, _, _ in pixels],
            image_errors=[error for _, error, _ in pixels],
            columns=columns,
        )

    def _pixels(self, encoded: bytes | None) -> Pixels:
        image, error = decode_or_error(encoded)
        if image is None or encoded is None:
            return image, error, {}
        made = {name: make(image) for name, make in self.prepare.items()}
        return image, error, made | {name: read(encoded) for name, read in self.peek.items()}


def ahead(work: Callable[[T], R], items: Sequence[T], cost: Callable[[T], int]) -> Iterator[R]:
    """`map(work, items)`, computed in threads while earlier results are used: at most AHEAD of
    them, and no more than AHEAD_BYTES by their cost, but always one.
    """
    left, waiting = deque(items), deque[tuple[Future[R], int]]()

    def submit() -> None:
        while left and len(waiting) < AHEAD:
            price = cost(left[0])
            if waiting and price + sum(c for _, c in waiting) > AHEAD_BYTES:
                return
            waiting.append((threads.submit(work, left.popleft()), price))

    with ThreadPoolExecutor(AHEAD, thread_name_prefix="ahead") as threads:
        try:
            submit()
            while waiting:
                ready = waiting.popleft()[0].result()
                submit()
                yield ready
        finally:
            threads.shutdown(cancel_futures=True)


def batches(
    data: Dataset,
    part: int,
    *,
    keep: Sequence[bool] | None = None,
    size: int = 256,
    columns: Mapping[str, list[Any]] | None = None,
) -> Iterator[Batch]:
    """A part's downloaded pairs in batches of at most `size`, decoded while earlier ones are used.
    Of no pairs there is one empty batch. keep, columns: as Reader has them.
    """
    with Reader(data, part, keep=keep, columns=columns) as reader:
        yield from ahead(reader.read, reader.runs(size), reader.cost)
