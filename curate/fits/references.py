"""Reference pairs: sets of pairs drawn by hash from what a scorer has stored, gathered into arrays.

    images.npy, texts.npy   float16 (sets, size, d), unit length
    codes.npy               int64 (sets, size, 2): which pairs share an image or a caption

Of a cross-fitted scorer, whose pairs are embedded by the model of their fold, each fold has sets of
its own pairs, in folders fold_00, fold_01 ...; a fold that is smaller than a set is its one set.

The parts are read once each and the arrays are files mapped into memory, so that neither the pool
nor the sets have to fit into it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curate.claims import digest
from curate.dataset import Dataset
from curate.query import connect, draw_sql, quote, select
from models.contrast import Array, Pairs, References, codes_of, save_spaces
from models.scorers.stored import compared_by

_SCORED = "error IS NULL AND caption_id = uid"  # whose caption is the original one


class OfAnother(Protocol):
    """A config of a scorer that is computed from what another one has stored."""

    @property
    def name(self) -> str: ...
    @property
    def of(self) -> str: ...
    def claimed(self) -> dict[str, Any]: ...


class Compares(OfAnother, Protocol):
    """A config of one that compares pairs with `rounds` sets of `batch` others."""

    @property
    def batch(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def seed(self) -> int: ...


def require(data: Dataset, config: OfAnother, columns: Sequence[str] = ()) -> str:
    """The table that the scorer reads. Raises ValueError where it, or a column, is not there.

    columns: none are those by which pairs are compared.
    """
    table, asked = f"scores_{config.of}", f"scorer {config.name!r} reads what {config.of!r} stored"
    if table not in data.tables():
        raise ValueError(
            f"{asked}; {data.root} has no table {table!r}: add a scorer of that name to the recipe,"
            f" such as `clip`, or give {config.name!r} another `of`"
        )
    found = columns_stored(data, table)
    wanted = columns or ("clip_score", *compared_by(found))
    if lacking := [c for c in wanted if c not in found]:
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
    rows = _draw(data, table, "uid", seed, purpose, count, where)
    found: list[str] = rows["uid"].to_pylist()
    return found


def drawn_by_fold(
    data: Dataset, table: str, seed: int, purpose: str, count: int
) -> dict[int, list[str]]:
    """The same by fold, of which a table that is not cross-fitted has one, 0."""
    column = "fold" if "fold" in columns_stored(data, table) else "0 AS fold"
    found: dict[int, list[str]] = {}
    rows = _draw(data, table, f"uid, {column}", seed, purpose, count, "true").to_pydict()
    for fold, uid in zip(rows["fold"], rows["uid"], strict=True):
        found.setdefault(fold, []).append(uid)
    return {fold: found[fold] for fold in sorted(found)}


def gather(
    data: Dataset, table: str, by_fold: Mapping[int, Sequence[str]], folder: Path
) -> dict[int, Pairs]:
    """The stored pairs with these uids, in this order, a uid as often as it occurs, by the
    embeddings that can be compared within their fold.

    Leaves images.npy and texts.npy of all folds in `folder`; the embeddings of what is returned are
    those files. Raises ValueError where no uid is asked for: nothing was scored.
    """
    uids = [uid for some in by_fold.values() for uid in some]
    places: dict[str, list[int]] = {}
    for place, uid in enumerate(uids):
        places.setdefault(uid, []).append(place)
    if not uids:
        raise ValueError(f"{table} of {data.root} has no pair with embeddings")
    codes, scores = np.zeros((len(uids), 2), np.int64), np.zeros(len(uids), np.float32)
    names = compared_by(columns_stored(data, table))
    found: list[Array] = []
    for part in sorted(data.parts(table)):
        rows, at = _chosen(data, table, part, places, names)
        if not at:
            continue
        columns = [embeddings(rows[name]) for name in names]
        found = found or [
            _file(folder / name, (len(uids), column.shape[1]))
            for name, column in zip(("images.npy", "texts.npy"), columns, strict=True)
        ]
        for array, column in zip(found, columns, strict=True):
            array[at] = column
        codes[at], scores[at] = _codes(data, part, rows["uid"].to_pylist()), rows["clip_score"]
    ends = np.cumsum([len(some) for some in by_fold.values()])[:-1]
    split = (np.split(array, ends) for array in (*found, scores, codes))
    return {f: Pairs(*arrays) for f, *arrays in zip(by_fold, *split, strict=True)}


def reference_sets(data: Dataset, table: str, config: Compares, folder: Path) -> None:
    """Fill `folder` with `rounds` sets of `batch` pairs, of each fold where there are folds, each
    drawn anew by hash(seed, round, uid); a pool or fold that is smaller than `batch` is the one
    set.
    """
    crossfitted = "fold" in columns_stored(data, table)
    wheres = {f: f"fold = {f}" for f in _folds(data, table)} if crossfitted else {0: "true"}
    sets = {fold: _sets(data, table, config, where) for fold, where in wheres.items()}
    uids = {fold: [uid for one in some for uid in one] for fold, some in sets.items()}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        found = {
            fold: _as_sets(pairs, len(sets[fold]))
            for fold, pairs in gather(data, table, uids, Path(scratch)).items()
        }
        if crossfitted:
            save_spaces(found, folder)
        else:
            found[0].save(folder)


def _sets(data: Dataset, table: str, config: Compares, where: str) -> list[list[str]]:
    def one(round_: int) -> list[str]:
        return drawn(data, table, config.seed, f"reference {round_}", config.batch, where)

    first = one(0)
    return [first, *map(one, range(1, config.rounds if len(first) == config.batch else 1))]


def _as_sets(pairs: Pairs, sets: int) -> References:
    sides = (pairs.images, pairs.texts, pairs.codes)
    return References(*(side.reshape(sets, -1, side.shape[1]) for side in sides))


def _folds(data: Dataset, table: str) -> list[int]:
    """The folds that have scored pairs."""
    con = connect(data)
    sql = f"SELECT DISTINCT fold FROM {quote(table)} WHERE {_SCORED} ORDER BY fold"
    found: list[int] = select(con, sql)["fold"].to_pylist()
    con.close()
    return found


def _draw(
    data: Dataset, table: str, what: str, seed: int, purpose: str, count: int, where: str
) -> pa.Table:
    order = draw_sql(seed, f"'{purpose} ' || uid")
    con = connect(data)
    found = select(
        con,
        f"SELECT {what} FROM {quote(table)} WHERE {_SCORED} AND ({where})"
        f" ORDER BY {order}, uid LIMIT {count}",
    )
    con.close()
    return found


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
    data: Dataset,
    table: str,
    part: int,
    places: Mapping[str, list[int]],
    names: Sequence[str],
) -> tuple[pa.Table, list[int]]:
    """Rows of a part that were asked for, once per place, and the places."""
    uids = data.read(table, part, ["uid"])["uid"].to_pylist()
    wanted = [(row, place) for row, uid in enumerate(uids) for place in places.get(uid, ())]
    if not wanted:
        return pa.table({}), []
    rows = data.read(table, part, ["uid", "clip_score", *names])
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
