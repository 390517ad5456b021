"""Pairs by their embeddings, some of them with another's caption: as arrays, a batch, a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from models.base import Batch
from models.contrast import Pairs, References, codes_of
from schemas.tables import SAMPLES, URLS, scores, uid_of
from tests.tiny import Placement, add_table, by_url

Array = np.ndarray[Any, np.dtype[Any]]
DIM = 64
# how much of an embedding its pair has in common: AUC of the loss about 0.975, 0.997 and 1
LEVELS = {"weak": 0.7, "middle": 0.9, "strong": 1.5}


@dataclass(frozen=True)
class Embedded:
    """images, texts: float16 (n, d), text i being what caption i was embedded as; planted: (n,),
    whether pair i has another's caption."""

    images: Array
    texts: Array
    hashes: list[str]
    captions: list[str]
    planted: Array

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def urls(self) -> list[str]:
        return [f"http://h/{i}.jpg" for i in range(len(self))]

    @property
    def uids(self) -> list[str]:
        return [uid_of(url, c) for url, c in zip(self.urls, self.captions, strict=True)]

    @property
    def cosines(self) -> Array:
        return cosines(self.images, self.texts)

    def take(self, rows: Sequence[int]) -> Embedded:
        return Embedded(
            self.images[rows],
            self.texts[rows],
            [self.hashes[i] for i in rows],
            [self.captions[i] for i in rows],
            self.planted[rows],
        )

    def pairs(self) -> Pairs:
        codes = codes_of(self.uids, self.hashes, self.captions)
        return Pairs(self.images, self.texts, self.cosines, codes)


def cosines(images: Array, texts: Array) -> Array:
    """float32 (n,) of float16 embeddings."""
    return np.sum(images.astype(np.float32) * texts.astype(np.float32), axis=1)


def unit(rows: Array) -> Array:
    """float16 of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def embedded(n: int, signal: float = 1.0, planted: float = 0.0, seed: int = 0) -> Embedded:
    """n pairs, of which this share has exchanged captions in a ring."""
    rng = np.random.default_rng(seed)
    common, mine, yours = rng.standard_normal((3, n, DIM))
    bad = rng.permutation(n)[: round(planted * n)]
    text_of = np.arange(n)
    text_of[bad] = np.roll(bad, 1)
    return Embedded(
        unit(signal * common + mine),
        unit(signal * common + yours)[text_of],
        [hashlib.sha256(f"image {i}".encode()).hexdigest() for i in range(n)],
        [f"caption {i}" for i in text_of],
        np.isin(np.arange(n), bad),
    )


def whole(pool: Embedded) -> References:
    """All pairs as the one set."""
    pairs = pool.pairs()
    return References(pairs.images[None], pairs.texts[None], pairs.codes[None])


def reference_sets(pool: Embedded, batch: int = 256, rounds: int = 4, seed: int = 0) -> References:
    """Random sets of the pool's pairs."""
    rng, pairs = np.random.default_rng(seed), pool.pairs()
    rows = np.stack([rng.permutation(len(pool))[:batch] for _ in range(rounds)])
    return References(pairs.images[rows], pairs.texts[rows], pairs.codes[rows])


def turned(pool: Embedded, folds: Sequence[int], seed: int = 0) -> Embedded:
    """The pairs of each fold turned by a rotation of its own: nothing changes within a fold, and
    what is compared across folds is garbage."""
    rng, (images, texts) = np.random.default_rng(seed), (np.empty((2, len(pool), DIM)))
    for fold in sorted(set(folds)):
        rotation, rows = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0], np.equal(folds, fold)
        images[rows], texts[rows] = pool.images[rows] @ rotation, pool.texts[rows] @ rotation
    return Embedded(unit(images), unit(texts), pool.hashes, pool.captions, pool.planted)


def seen(pool: Embedded) -> Embedded:
    """The same pairs as a model embeds them that knows them by heart, the wrong ones as well."""
    other = embedded(len(pool), LEVELS["strong"], seed=7)
    return Embedded(**(vars(pool) | {"images": other.images, "texts": other.texts}))


def of_own_folds(pool: Embedded, folds: Sequence[int]) -> dict[str, list[Any]]:
    """What a cross-fitted scorer stores of pairs that their own folds' models embed like this."""
    return {
        "fold": list(folds),
        "own_image_emb": list(pool.images),
        "own_text_emb": list(pool.texts),
        "clip_score": pool.cosines.tolist(),
    }


def plain_losses(
    pool: Embedded, rows: Sequence[int], others: Sequence[int], tau: float, scores: Any = None
) -> Array:
    """The losses of these pairs against a set of others, one by one as models/contrast.py says.

    scores: of all pairs; their cosines as stored, where those of the embeddings are rounded more.
    """
    owns = (pool.cosines if scores is None else np.array(scores)) / tau
    return np.array([_plain_loss(pool, row, others, float(owns[row]), tau) for row in rows])


def _plain_loss(pool: Embedded, row: int, others: Sequence[int], own: float, tau: float) -> float:
    names = (pool.hashes, pool.captions)
    alien = [j for j in others if all(side[j] != side[row] for side in names)]
    if not alien:
        return float("nan")
    images, texts = pool.images.astype(float), pool.texts.astype(float)
    sides = (texts[alien] @ images[row], images[alien] @ texts[row])
    sums = [np.log(np.exp(own) + (len(others) - 1) * np.exp(s / tau).mean()) for s in sides]
    return float(sum(sums) / 2 - own)


def batch_of(pool: Embedded, **columns: list[Any]) -> Batch:
    """What a scorer of stored embeddings is called with."""
    n = len(pool)
    stored: dict[str, list[Any]] = {
        "image_emb": list(pool.images),
        "text_emb": list(pool.texts),
        "clip_score": pool.cosines.tolist(),
        "samples__sha256": list(pool.hashes),
    }
    return Batch(
        pool.uids, pool.uids, list(pool.captions), [None] * n, [None] * n, stored | columns
    )


def dataset(
    root: Any,
    pool: Embedded,
    parts: int | Placement = 2,
    errors: Mapping[int, str] | None = None,
    name: str = "clip",
    **columns: Sequence[Any],
) -> Dataset:
    """A published dataset with urls, samples and scores_<name>; pairs with an error have nulls.

    columns: more of scores_<name>, such as `of_own_folds`; the kind is then `bootstrap`.
    """
    where = by_url(parts) if isinstance(parts, int) else parts
    placed: dict[int, list[int]] = {p: [] for p in range(parts if isinstance(parts, int) else 0)}
    for uid, row in sorted(zip(pool.uids, range(len(pool)), strict=True)):
        placed.setdefault(where(uid), []).append(row)
    data, every = Dataset(str(root)), _columns(pool, errors or {}, columns)
    own = [name for name in columns if name.endswith("_emb")]
    dims = dict.fromkeys(["image_emb", "text_emb", *own], DIM)
    kind = scores("bootstrap" if columns else "clip", dims)
    schemas = {"urls": URLS, "samples": SAMPLES, f"scores_{name}": kind}
    for table, schema in schemas.items():
        made = {p: _rows(every, rows, schema) for p, rows in placed.items()}
        add_table(data, table, made, ())
    return data


def _columns(
    pool: Embedded, errors: Mapping[int, str], more: Mapping[str, Sequence[Any]]
) -> dict[str, Sequence[Any]]:
    def scored(values: Sequence[Any]) -> list[Any]:
        return [None if row in errors else value for row, value in enumerate(values)]

    n = len(pool)
    return {
        "uid": pool.uids,
        "caption_id": pool.uids,
        "url": pool.urls,
        "caption": pool.captions,
        "key": pool.uids,
        "status": ["success"] * n,
        "sha256": pool.hashes,
        "clip_score": scored(pool.cosines.tolist()),
        "image_emb": scored(list(pool.images)),
        "text_emb": scored(list(pool.texts)),
        "error": [errors.get(row) for row in range(n)],
    } | {name: scored(values) for name, values in more.items()}


def _rows(columns: Mapping[str, Sequence[Any]], rows: Sequence[int], schema: pa.Schema) -> pa.Table:
    """These rows, with nulls for the columns that are not given."""
    nothing = [None] * (max(rows, default=0) + 1)
    arrays = [
        pa.array([columns.get(field.name, nothing)[row] for row in rows], field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
