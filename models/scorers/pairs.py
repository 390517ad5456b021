"""What scorers of pairs share: who can be scored, and results put back at their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from models.base import Batch

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]
MAX_ERROR = 200  # characters


def image_fault(batch: Batch, row: int) -> str | None:
    """Why a pair's image cannot be looked at; None where it can."""
    return (batch.image_errors[row] or "no image") if batch.images[row] is None else None


def caption_fault(caption: str | None) -> str | None:
    """Why a caption cannot be read; None where it can."""
    return "no caption" if not caption or caption.isspace() else None


def pair_faults(batch: Batch) -> list[str | None]:
    """Per pair: why it cannot be scored, None where it can."""
    return [
        image_fault(batch, row) or caption_fault(batch.captions[row]) for row in range(len(batch))
    ]


def one_line(error: BaseException) -> str:
    """An exception as a short line for a cell or a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_ERROR]


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of at most `size` items, in order."""
    return (items[start : start + size] for start in range(0, len(items), size))


def distinct(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in order of appearance, and for each text its place among them."""
    place: dict[str, int] = {}
    places = [place.setdefault(text, len(place)) for text in texts]
    return list(place), places


def spread(values: Iterable[Any], rows: Sequence[int], n: int) -> list[Any]:
    """A column of n cells with the values at these rows and None elsewhere."""
    column: list[Any] = [None] * n
    for row, value in zip(rows, values, strict=True):
        column[row] = value
    return column


def spread_embeddings(embeddings: Array, rows: Sequence[int], n: int) -> Array:
    """float16 (n, d) with the embeddings at these rows and NaN elsewhere: a zero would pass for a
    direction."""
    column = np.full((n, embeddings.shape[1]), np.nan, np.float16)
    column[list(rows)] = embeddings
    return column


def column(batch: Batch, name: str, scorer: str) -> list[Any]:
    """A column of the batch. Raises ValueError with the scorer and the columns found."""
    if name not in batch.columns:
        found = ", ".join(sorted(batch.columns)) or "none"
        raise ValueError(f"scorer {scorer}: needs the batch column {name}; found {found}")
    return batch.columns[name]
