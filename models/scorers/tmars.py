"""T-MARS: how well a caption fits what an image shows, text in it covered (Maini et al., 2023).

Text is found, each of its boxes filled with the mean colour of the pixels around it, and what is
left is scored by CLIP (section 4, algorithm 1). About 40 % of LAION's images have text in them that
is part of their caption: a model that is trained on these learns to read rather than to see. The
paper keeps the pairs whose score reaches the median.

`text_overlap`: the share of a caption's distinct words that are read in the image. A word is a run
of letters and digits, after NFKC and casefold; apostrophes are taken out, all other punctuation
parts words, and each Chinese character or kana is one by itself. It is read where a line has the
same word or, if it is of four letters or more, where a line has it with the spaces left out: the
reader drops those between small letters. Null for a caption without a word.

Cost: models.ocr's, in the threads that decode, and CLIP's. On one core 6.4 CPU hours per
million images of 256 x 256 to look for text, and 7 more for each box per image that is read: all of
them with `recognise`, else those that may be no text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.base import Batch, Columns, Image
from models.decode import over_white
from models.ocr import Ocr
from models.scorers.clip import MAX_CHARACTERS, Clip
from models.scorers.pairs import one_line, pair_faults
from models.text_boxes import covered, filled
from schemas.configs import ClipScorer, TmarsScorer

FAULTS = (ValueError, TypeError, OSError)
APOSTROPHES = dict.fromkeys(map(ord, "'’ʼ`´"))
HAN_OR_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WHOLE = 4  # letters of a word that is looked for in a line without spaces
WORD = re.compile(rf"[{HAN_OR_KANA}]|[^\W_{HAN_OR_KANA}]+")


@dataclass(frozen=True)
class Seen:
    """An image as CLIP sees it, and the text that was in it."""

    pixels: Image  # text covered, at the model's size
    area: float  # share of the image that is text
    boxes: int
    lines: tuple[str, ...] | None  # None: not read


class Tmars:
    """Scores pairs as Clip does, of images without their text."""

    def __init__(self, config: TmarsScorer) -> None:
        self.config = config
        shared = config.model_dump(include={"name", "model", "pretrained", "precision"})
        clip = ClipScorer(**shared, batch_size=config.batch_size, embeddings=False)
        self.clip = Clip(clip)
        self.ocr = Ocr(config)

    def prepare(self, image: Image) -> Seen | str:
        """What is scored of an image, or why it cannot be. Of any thread."""
        import cv2

        if 0 in image.shape:
            return "image not prepared: it has no pixels"
        try:
            return self._seen(over_white(image))
        except (*FAULTS, cv2.error) as error:
            return f"image not prepared: {one_line(error)}"

    def _seen(self, image: Image) -> Seen | str:
        boxes, lines = self.ocr(image)
        pixels = self.clip.prepare(filled(image, boxes, self.config.ring))
        if isinstance(pixels, str):
            return pixels
        share = float(covered(boxes, *image.shape[:2]).mean())
        return Seen(pixels, share, len(boxes), tuple(lines) if self.config.recognise else None)

    def __call__(self, batch: Batch) -> Columns:
        seen = self._batch(batch)
        pixels = [found.pixels if isinstance(found, Seen) else found for found in seen]
        found = self.clip(replace(batch, columns={f"{self.config.name}__prepared": pixels}))
        errors: list[str | None] = found["error"]
        shown = [
            own if error is None and isinstance(own, Seen) else None
            for own, error in zip(seen, errors, strict=True)
        ]
        return {
            "tmars": found["clip_score"],
            "text_area": [own and own.area for own in shown],
            "text_boxes": [own and own.boxes for own in shown],
            "text_overlap": [
                own and overlap(caption, own.lines)
                for own, caption in zip(shown, batch.captions, strict=True)
            ],
            "error": errors,
        }

    def _batch(self, batch: Batch) -> list[Seen | str | None]:
        """Each row's image: from the column `<name>__prepared` where `prepare` was called
        beforehand, else prepared once however many captions it has; None for rows not scored.
        """
        faults = pair_faults(batch)
        ready = batch.columns.get(f"{self.config.name}__prepared", [None] * len(batch))
        known: dict[int, Seen | str] = {}
        found: list[Seen | str | None] = []
        for image, prepared, fault in zip(batch.images, ready, faults, strict=True):
            if image is None or fault is not None:
                found.append(None)
            elif prepared is not None:
                found.append(prepared)
            else:
                if id(image) not in known:
                    known[id(image)] = self.prepare(image)
                found.append(known[id(image)])
        return found


def words_of(text: str) -> list[str]:
    """The words of a text, as they are compared."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = unicodedata.normalize("NFKC", plain).translate(APOSTROPHES)
    return WORD.findall(plain)


def overlap(caption: str | None, lines: Sequence[str] | None) -> float | None:
    """The share of the caption's words that are in these lines; None where these are None or the
    caption has no word.
    """
    own = set(words_of((caption or "")[:MAX_CHARACTERS]))
    if lines is None or not own:
        return None
    read = [words_of(line) for line in lines]
    words, joined = set().union(*read), ["".join(line) for line in read]
    shown = sum(
        word in words or (len(word) >= WHOLE and any(word in line for line in joined))
        for word in own
    )
    return shown / len(own)
