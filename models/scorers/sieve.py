"""Sieve: how near a caption comes to what a captioner says of the image (Mahmoud et al. 2024,
2310.02110).

The captioner samples some captions of the image; phrases that name the medium alone are taken out
of them and of the alt-text; the score is the largest cosine of their sentence embeddings. Where
nothing is left of the alt-text, or of any generated caption, there is nothing to compare and the
score is 0, as in the authors' code. No alt-text at all is an error, as for every scorer of pairs.

Captions are drawn by (seed, uid, index), so that no other pair changes them. On a GPU bf16 rounds
by the batch, and a sampled word can depend on that: `precision: fp32` where it must not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from models.base import Batch, Columns
from models.captioners.hf import Hf
from models.scorers.pairs import distinct, pair_faults, spread
from models.scorers.sentences import Sentences
from schemas.configs import HfCaptioner, SieveScorer

MAX_CHARACTERS = 2000  # of a caption that are read: 256 tokens of English are 1100
# taken out one after the other, wherever they stand, as in the authors' code: "photography" loses
# its photo, on both sides
MEDIUM = (
    *("an image of", "a photo of", "stock photo", "photo stock"),
    *("a photo", "an image", "image", "photo"),
)
PATTERNS = tuple(re.compile(phrase, re.IGNORECASE) for phrase in MEDIUM)
Best = tuple[float, str | None]  # the score, and the caption that it is of


class Sieve:
    """Captions each image, then compares; equal texts of a call are encoded once."""

    def __init__(self, config: SieveScorer) -> None:
        self.config = config
        self.captioner = Hf(captioner_of(config), config.precision)
        self.encode = Sentences(config)

    def __call__(self, batch: Batch) -> Columns:
        errors = pair_faults(batch)
        rows = [row for row, error in enumerate(errors) if error is None]
        generated, reasons = self.captioner(images_of(batch, rows))
        for row, reason in zip(rows, reasons, strict=True):
            errors[row] = reason
        known = {row: texts for row, texts in zip(rows, generated, strict=True) if texts}
        found = self.best([batch.captions[row] or "" for row in known], list(known.values()))
        for row, (score, _) in zip(known, found, strict=True):
            errors[row] = None if math.isfinite(score) else "the encoder gives no finite vector"
        good = [row for row in known if errors[row] is None]
        scores = [best for best in found if math.isfinite(best[0])]
        return {
            "sieve": spread([score for score, _ in scores], good, len(batch)),
            "sieve_caption": spread([text for _, text in scores], good, len(batch)),
            "error": errors,
        }

    def best(self, captions: Sequence[str], generated: Sequence[Sequence[str]]) -> list[Best]:
        """Per caption the largest cosine with its generated ones, and which of these has it."""
        said = [without_medium(text) for text in captions]
        seen = [[without_medium(text) for text in texts] for texts in generated]
        texts, _ = distinct(text for own in (said, *seen) for text in own if text)
        vectors = dict(zip(texts, self.encode(texts), strict=True))
        found: list[Best] = []
        for mine, theirs, originals in zip(said, seen, generated, strict=True):
            there = [place for place, text in enumerate(theirs) if text]
            if not mine or not there:
                found.append((0.0, None))
                continue
            cosines = np.stack([vectors[theirs[place]] for place in there]) @ vectors[mine]
            at = int(np.argmax(cosines))
            found.append((float(cosines[at]), originals[there[at]]))
        return found


def captioner_of(config: SieveScorer) -> HfCaptioner:
    """The captioner that a scorer has within."""
    return HfCaptioner(
        name=config.name,
        model=config.captioner,
        prompt=config.prompt,
        num_captions=config.captions,
        min_new_tokens=config.min_tokens,
        max_new_tokens=config.max_tokens,
        top_p=config.top_p,
        repetition_penalty=config.repetition_penalty,
        batch_size=config.batch_size,
        seed=config.seed,
    )


def images_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """These rows of a batch, as a captioner needs them."""
    return Batch(
        uids=[batch.uids[row] for row in rows],
        caption_ids=[batch.caption_ids[row] for row in rows],
        captions=[batch.captions[row] for row in rows],
        images=[batch.images[row] for row in rows],
        image_errors=[batch.image_errors[row] for row in rows],
    )


def without_medium(text: str) -> str:
    """The text without the phrases of MEDIUM in any case, one space between its words."""
    left = text[:MAX_CHARACTERS]
    for pattern in PATTERNS:
        left = pattern.sub("", left)
    return " ".join(left.split())
