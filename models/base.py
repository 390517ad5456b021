"""What a unit is: a plain class, built once per worker, called with a batch, giving columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

Image = np.ndarray[Any, np.dtype[np.uint8]]
Columns = dict[
    str, Any
]  # name -> list or array of len(batch); arrays of shape (n, d) are embeddings


@dataclass(frozen=True)
class Batch:
    """Pairs with their pixels; all lists have the same length.

    images: RGB, or RGBA where the stored file has alpha; uint8, height x width x channels, at the
    stored resolution; None where there is no image, with the reason in image_errors.
    columns: more columns of the pairs, such as samples__original_width.
    """

    uids: list[str]
    caption_ids: list[str]
    captions: list[str | None]
    images: list[Image | None]
    image_errors: list[str | None]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uids)


class Scorer(Protocol):
    """Numbers for every pair of a batch; a bad pair costs that pair.

    Gives the columns that schemas.tables.SCORES lists for its kind; `error`, None or a short text
    per pair, where the scores are None; and image_emb / text_emb as arrays (n, d) where it has
    embeddings, a row of NaN where the pair has none. A cross-fitted one has `fold` too, and
    own_image_emb / own_text_emb, by the model that held the pair out; they can be compared within
    a fold. One that has `prepare(image)` finds what that made in the column `<name>__prepared`, and
    what `peek(file)` did in `<name>__peeked`: both are called by the threads that decode, where
    there are any.
    """

    def __call__(self, batch: Batch) -> Columns: ...


class Captioner(Protocol):
    """Captions of a batch: per image a list of them, or None and the reason among the errors."""

    def __call__(self, batch: Batch) -> tuple[list[list[str] | None], list[str | None]]: ...
