"""Reference pairs: sets of pairs drawn by hash from what a scorer has stored, gathered into arrays.

    images.npy, texts.npy   float16 (sets, size, d), unit length
    codes.npy               int64 (sets, size, 2): which pairs share an image or a caption

The parts are read once each and the arrays are files mapped into memory, so that neither the pool
nor the sets have to fit into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curate.claims import digest
from curate.dataset import Dataset
from curate.query import connect, draw_sql, quote, select
from models.contrast import Array, Pairs, codes_of

EMBEDDINGS = ("image_emb", "text_emb")
SCORED = ("clip_score", *EMBEDDINGS)


class OfAnother(Protocol):
    """A config of a scorer that is computed from what another one has stored."""

    @property
    def name(self) -> str: ...
    @property
    def of(self) -> str: ...
    def claimed(self) -> dict[str, Any]: ...


def require(data: Dataset, config: OfAnother, columns: Sequence[str] = SCORED) -> str:
    """The table that the scorer reads. Raises ValueError where it, or a column, is not there."""
    table, asked = f"scores_{config.of}", f"scorer {config.name!r} reads what {config.of!r} stored"
    if table not in data.tables():
        raise ValueError(
            f"{asked}; {data.root} has no table {table!r}: add a scorer of that name to the recipe,"
            f" such as `clip`, or give {config.name!r} another `of`"
        )
    found = columns_stored(data, table)
    if lacking := [c for c in columns if c not in found]:
        raise ValueError(
            f"{asked}; {table} of {data.root} has no {', '.join(lacking)}: let {config.of!r} have"
            f" `embeddings: true`, or give {config.name!r} another `of`"
        )
    return table


def columns_stored(data: Dataset, table: str) -> list[str]:
    """Names of a table's columns."""
    con = connect(data)
    found: list[str] = select(con, f"SELECT * FROM {quote(table)} LIMIT 0").column_names
    con.close()
    return found


def space_of(data: Dataset, table: str) -> str:
    """A hash of what made a table's embeddings; only embeddings of one space can be compared."""
    return digest([data.config_of(table), data.artifact_in_use(table)])


def key_of(data: Dataset, config: OfAnother, table: str) -> str:
    """The key of what is fitted at this version; it begins with the space of the embeddings."""
    state = [config.claimed(), data.fingerprint(["urls", "samples", table])]
    return f"{space_of(data, table)}-{digest(state)}"


def drawn(
    data: Dataset, table: str, seed: int, purpose: str, count: int, where: str = "true"
) -> list[str]:
    """Uids of the `count` scored pairs with the lowest hash(seed, purpose, uid), in its order.

    purpose: a word of ours, so that draws for other ends are others.
    """
    order = draw_sql(seed, f"'{purpose} ' || uid")
    con = connect(data)
    found: list[str] = select(
        con,
        f"SELECT uid FROM {quote(table)} WHERE error IS NULL AND caption_id = uid AND ({where})"
        f" ORDER BY {order}, uid LIMIT {count}",
    )["uid"].to_pylist()
    con.close()
    return found


def gather(data: Dataset, table: str, uids: Sequence[str], folder: Path, sets: int = 1) -> Pairs:
    """The stored pairs with these uids, in this order, a uid as often as it occurs.

    Leaves images.npy, texts.npy and codes.npy of shape (sets, len(uids) / sets, ...) in `folder`;
    the embeddings of what is returned are those files. Raises ValueError where no uid is asked for:
    nothing was scored.
    """
    places: dict[str, list[int]] = {}
    for place, uid in enumerate(uids):
        places.setdefault(uid, []).append(place)
    if not uids:
        raise ValueError(f"{table} of {data.root} has no pair with embeddings")
    codes, scores = np.zeros((len(uids), 2), np.int64), np.zeros(len(uids), np.float32)
    found: list[Array] = []
    for part in sorted(data.parts(table)):
        rows, at = _chosen(data, table, part, places)
        if not at:
            continue
        columns = [embeddings(rows[name]) for name in EMBEDDINGS]
        found = found or [
            _file(folder / name, (sets, len(uids) // sets, column.shape[1]))
            for name, column in zip(("images.npy", "texts.npy"), columns, strict=True)
        ]
        for array, column in zip(found, columns, strict=True):
            array.reshape(len(uids), -1)[at] = column
        codes[at], scores[at] = _codes(data, part, rows["uid"].to_pylist()), rows["clip_score"]
    np.save(folder / "codes.npy", codes.reshape(sets, -1, 2))
    images, texts = (array.reshape(len(uids), -1) for array in found)
    return Pairs(images, texts, scores, codes)


def reference_sets(
    data: Dataset, table: str, seed: int, batch: int, rounds: int, folder: Path
) -> None:
    """Fill `folder` with `rounds` sets of `batch` pairs, each drawn anew by hash(seed, round, uid);
    a pool that is smaller than `batch` is the one set.
    """
    sets = [drawn(data, table, seed, "reference 0", batch)]
    if len(sets[0]) == batch:
        sets += [drawn(data, table, seed, f"reference {r}", batch) for r in range(1, rounds)]
    gather(data, table, [uid for one in sets for uid in one], folder, len(sets))


def columns(data: Dataset, config: Any, key: str, part: int) -> dict[str, list[Any]]:
    """What a scorer of stored embeddings needs beside them: nothing."""
    return {}


def embeddings(column: pa.ChunkedArray | pa.Array) -> Array:
    """A column of fixed-size lists without nulls as an array (n, d)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: Array = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), array.type.list_size)


def captions_of(data: Dataset, part: int) -> dict[str, str | None]:
    """The original captions of a part's pairs, by uid."""
    rows = data.read("urls", part, ["uid", "caption"]).to_pydict()
    return dict(zip(rows["uid"], rows["caption"], strict=True))


def hashes_of(data: Dataset, part: int) -> dict[str, str | None]:
    """The sha256 of the images of a part's pairs, by uid."""
    rows = data.read("samples", part, ["uid", "sha256"]).to_pydict()
    return dict(zip(rows["uid"], rows["sha256"], strict=True))


def _chosen(
    data: Dataset, table: str, part: int, places: Mapping[str, list[int]]
) -> tuple[pa.Table, list[int]]:
    """Rows of a part that were asked for, once per place, and the places."""
    uids = data.read(table, part, ["uid"])["uid"].to_pylist()
    wanted = [(row, place) for row, uid in enumerate(uids) for place in places.get(uid, ())]
    if not wanted:
        return pa.table({}), []
    rows = data.read(table, part, ["uid", *SCORED])
    return rows.take(pa.array([row for row, _ in wanted])), [place for _, place in wanted]


def _codes(data: Dataset, part: int, uids: Sequence[str]) -> Array:
    hashes, captions = hashes_of(data, part), captions_of(data, part)
    return codes_of(uids, [hashes[uid] for uid in uids], [captions[uid] for uid in uids])


def _file(path: Path, shape: tuple[int, ...]) -> Array:
    """A float16 array that lives in a file."""
    array: Array = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=np.float16, shape=shape
    )
    return array
