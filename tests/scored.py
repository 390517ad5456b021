"""Pairs 0..n-1 with one score each: what tests of deciding and asking start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.dataset import Dataset
from schemas.tables import scores
from tests.tiny import Row, by_url, tiny_dataset


def row(i: int, **more: Any) -> Row:
    """Pair i."""
    return Row(f"http://h/{i}.jpg", f"caption {i}", **more)


def uid(i: int) -> str:
    """The identity of pair i."""
    return row(i).uid


def pool(
    root: str,
    score_of: Mapping[int, float | None],
    *,
    parts: int = 1,
    failed: Sequence[int] = (),
    unscored: Sequence[int] = (),
) -> Dataset:
    """A dataset with scores_s.clip_score; `failed` were not downloaded, `unscored` have no row."""
    rows = [
        row(i, status="failed_to_download")
        if i in failed
        else row(i, scores={} if i in unscored else {"s": {"clip_score": score}})
        for i, score in score_of.items()
    ]
    return tiny_dataset(root, rows, by_url(parts))


def scored(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a table scores_*, absent columns null."""
    schema = scores("bootstrap")
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | r for r in rows], schema=schema)
