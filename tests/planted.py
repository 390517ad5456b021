"""Images that are known to be of a topic: codes of patches drawn from the topic's own codes, some
from all, laid out at random; and how well clusters agree with topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.dataset import Dataset
from schemas.tables import CODES
from tests.tiny import Row, add_table, by_url, tiny_dataset

OF_A_TOPIC = 40  # codes
Ints = np.ndarray[Any, np.dtype[np.int64]]


def planted(
    rows: int, topics: int = 40, codes: int = 512, patches: int = 196, seed: int = 0
) -> tuple[Ints, Ints]:
    """Codes (rows, patches) in any layout, 30 % of them background, and each row's topic."""
    rng = np.random.default_rng(seed)
    own = np.stack([rng.choice(codes, OF_A_TOPIC, replace=False) for _ in range(topics)])
    topic = rng.integers(0, topics, rows)
    found = own[topic[:, None], rng.integers(0, OF_A_TOPIC, (rows, patches))]
    background = rng.random((rows, patches)) < 0.3
    found[background] = rng.integers(0, codes, int(background.sum()))
    return found, topic


def pairs(count: int, **more: Any) -> list[Row]:
    """Pairs 0..count-1."""
    return [Row(f"http://a/{i}", **more) for i in range(count)]


def coded(
    root: str, rows: Sequence[Row], codes: Sequence[Any], parts: int = 2, salt: int = 0
) -> Dataset:
    """A dataset of these pairs with codes_codebook; None: an image without codes."""
    place = by_url(parts, salt)
    data = tiny_dataset(root, rows, place)
    tables: dict[int, list[dict[str, Any]]] = {part: [] for part in data.parts("samples")}
    for row, some in sorted(zip(rows, codes, strict=True), key=lambda pair: pair[0].uid):
        listed = None if some is None else [int(c) for c in some]
        tables[place(row.uid)].append({"uid": row.uid, "codes": listed, "cluster": None})
    stored = {part: pa.Table.from_pylist(found, CODES) for part, found in tables.items()}
    add_table(data, "codes_codebook", stored, ("samples",))
    return data


def nmi(first: Ints, second: Ints) -> float:
    """Normalised mutual information of two labellings, 0..1, by the mean of their entropies."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    both = table / table.sum()
    alone = np.outer(both.sum(axis=1), both.sum(axis=0))
    there = both > 0
    shared = (both[there] * np.log(both[there] / alone[there])).sum()
    return float(2 * shared / (_entropy(both.sum(axis=1)) + _entropy(both.sum(axis=0))))


def _entropy(shares: np.ndarray[Any, Any]) -> float:
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
