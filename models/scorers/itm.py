"""Image-text matching by any BLIP checkpoint of transformers, by hub name or path.

`itm_prob`: softmax of the matching head's two logits, the second of them, over the image-grounded
text encoder; `itc_score`: cosine of the two projections (Li et al., 2022, BLIP, section 3; CapFilt
drops a caption below 0.5). The cross-encoder reads every pair, but equal pairs once, and an image
with several captions is encoded once per batch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.base import Batch, Columns, Image
from models.scorers.blip import Blip
from models.scorers.fitting import Fitting
from models.scorers.pairs import distinct, one_line, pair_faults, spread
from schemas.configs import ItmScorer
from schemas.tables import clean

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MAX_CHARACTERS = 2000  # of a caption that are tokenized: 35 tokens of English are 160
Pair = tuple[int, str]  # the first row that has the image, the caption
FAULTS = (ValueError, TypeError, OSError, RuntimeError, ZeroDivisionError)  # of image processors


class Itm:
    """Scores pairs on the GPU where there is one. Its batch halves when memory runs out, and stays
    so.
    """

    def __init__(self, config: ItmScorer) -> None:
        self.config = config
        self.blip = Blip(config)
        self.fitting = Fitting(config.batch_size)
        self.cut = 0  # distinct captions of each call that were longer than max_tokens

    def prepare(self, image: Image) -> Tensor | str:
        """An image at the model's size, uint8 (3, s, s), or why there is none. Of any thread."""
        try:
            return self.blip.resized(image)
        except FAULTS as error:
            return f"image not prepared: {one_line(error)}"

    def __call__(self, batch: Batch) -> Columns:
        errors = pair_faults(batch)
        pixels = self._pixels(batch, errors)
        rows = [row for row, error in enumerate(errors) if error is None]
        first = first_rows(batch, rows)
        pairs = [(first[row], batch.captions[row] or "") for row in rows]
        order = sorted(set(pairs))  # an image's captions stand together
        scores = dict(zip(order, self._scores(pixels, order).tolist(), strict=True))
        return {
            "itm_prob": spread([scores[pair][0] for pair in pairs], rows, len(batch)),
            "itc_score": spread([scores[pair][1] for pair in pairs], rows, len(batch)),
            "error": errors,
        }

    def _pixels(self, batch: Batch, errors: list[str | None]) -> dict[int, Tensor]:
        """By row: its prepared image, from the column `<name>__prepared` where `prepare` was called
        beforehand. A row whose image is refused gets its error.
        """
        ready = batch.columns.get(f"{self.config.name}__prepared", [None] * len(batch))
        pixels: dict[int, Tensor] = {}
        for row, (image, prepared) in enumerate(zip(batch.images, ready, strict=True)):
            if image is None or errors[row] is not None:
                continue
            found = self.prepare(image) if prepared is None else prepared
            if isinstance(found, str):
                errors[row] = found
            else:
                pixels[row] = found
        return pixels

    def _scores(self, pixels: Mapping[int, Tensor], pairs: Sequence[Pair]) -> np.ndarray:
        """itm_prob and itc_score of distinct pairs: float32 (n, 2)."""
        tokens = self._tokens([caption for _, caption in pairs])

        def match(some: Sequence[Pair]) -> Tensor:
            rows = sorted({row for row, _ in some})
            texts, of_text = distinct(caption for _, caption in some)
            of_image = [rows.index(row) for row, _ in some]
            images = [pixels[row] for row in rows]
            return self.blip.match(images, of_image, [tokens[text] for text in texts], of_text)

        found = [part.cpu().numpy() for part in self.fitting(match, pairs)]
        return np.concatenate([np.empty((0, 2), np.float32), *found])

    def _tokens(self, captions: Sequence[str]) -> dict[str, list[int]]:
        """Ids of the captions, cut to max_tokens with the end kept; the first cut is logged."""
        texts, _ = distinct(captions)
        ids = self.blip.token_ids([clean(text)[:MAX_CHARACTERS] for text in texts])
        most = self.config.max_tokens
        cut = sum(len(own) > most for own in ids)
        if cut and not self.cut:
            log.warning(
                "scorer %s: %d of %d captions have more than %d tokens and are cut; said once",
                *(self.config.name, cut, len(texts), most),
            )
        self.cut += cut
        kept = [own if len(own) <= most else [*own[: most - 1], own[-1]] for own in ids]
        return dict(zip(texts, kept, strict=True))


def first_rows(batch: Batch, rows: Sequence[int]) -> dict[int, int]:
    """By row: the first of these rows that has the same pixels."""
    first: dict[bytes, int] = {}
    found: dict[int, int] = {}
    for row in rows:
        image = np.ascontiguousarray(batch.images[row])
        digest = hashlib.sha256(repr(image.shape).encode())
        digest.update(image.data)
        found[row] = first.setdefault(digest.digest(), row)
    return found
