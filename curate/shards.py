"""Shards: the image tars beside `samples`: read by byte range and decode, in threads while others
compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from curate.dataset import Dataset
from models.base import Batch, Image

GAP = 1 << 20  # two images closer than this are read as one range
DECODE_THREADS = 4


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


def batches(
    data: Dataset,
    part: int,
    *,
    keep: Sequence[bool] | None = None,
    size: int = 256,
    columns: dict[str, list[Any]] | None = None,
) -> Iterator[Batch]:
    """A part's downloaded pairs in batches of `size`, decoded once; the next batch decodes while
    this one is used. Where there are none, one batch without pairs: its reader still learns what
    columns there would be.

    keep: which rows of the part; None: all that were downloaded. columns: more columns, aligned
    with the part's rows.
    """
    urls, samples = data.read("urls", part, ["uid", "caption"]), data.read("samples", part)
    downloaded = [s == "success" for s in samples["status"].to_pylist()]
    rows = [i for i, ok in enumerate(downloaded) if ok and (keep is None or keep[i])]
    captions = dict(zip(urls["uid"].to_pylist(), urls["caption"].to_pylist(), strict=True))
    more = {
        f"samples__{n}": samples[n].to_pylist()
        for n in ("original_width", "original_height", "sha256", "size")
    }
    more |= columns or {}
    chunks = [rows[i * size : (i + 1) * size] for i in range(max(1, math.ceil(len(rows) / size)))]
    with ThreadPoolExecutor(DECODE_THREADS) as threads, ThreadPoolExecutor(1) as ahead:
        pending = [ahead.submit(_batch, data, samples, captions, more, chunks[0], threads)]
        for following in [*chunks[1:], None]:
            ready = pending.pop().result()
            if following is not None:
                pending.append(
                    ahead.submit(_batch, data, samples, captions, more, following, threads)
                )
            yield ready


def _batch(
    data: Dataset,
    samples: pa.Table,
    captions: dict[str, str | None],
    columns: dict[str, list[Any]],
    rows: list[int],
    threads: ThreadPoolExecutor,
) -> Batch:
    samples = samples.take(pa.array(rows, pa.int64()))
    uids = samples["uid"].to_pylist()
    decoded = list(threads.map(decode_or_error, read_bytes(data, samples)))
    return Batch(
        uids=uids,
        caption_ids=list(uids),
        captions=[captions[u] for u in uids],
        images=[image for image, _ in decoded],
        image_errors=[error for _, error in decoded],
        columns={name: [values[r] for r in rows] for name, values in columns.items()},
    )
