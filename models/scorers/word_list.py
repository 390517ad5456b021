"""Which entries of a word list occur in the caption as whole words.

By definition: " entry " is a part of " caption ", after the characters of `split_off` got spaces
around them and runs of white space became one space, in both (MetaCLIP, Xu et al. 2024). Computed
by looking up the caption's runs of words in the list, so that half a million entries cost what
ten do. Within a caption's first MAX_CHARACTERS.

Cost: 16 CPU seconds per million captions of 45 characters, entries of up to five words.
"""

from __future__ import annotations

from pathlib import Path

from models.base import Batch, Columns
from models.scorers.pairs import caption_fault, one_line, spread
from schemas.configs import WordListScorer

MAX_CHARACTERS = 10_000  # of a caption that are looked at
COMMENT = "#"


class WordList:
    """Looks at the caption alone; no caption is an error."""

    def __init__(self, config: WordListScorer) -> None:
        self.config = config
        self.apart = str.maketrans({c: f" {c} " for c in config.split_off})
        # what a caption is searched for -> the entry as it is written; the first of equal ones
        self.entries: dict[str, str] = {}
        for entry in load(config):
            self.entries.setdefault(" ".join(self.tokens(entry)), entry)
        self.lengths = sorted({found.count(" ") + 1 for found in self.entries})

    def __call__(self, batch: Batch) -> Columns:
        errors = [caption_fault(caption) for caption in batch.captions]
        rows = [row for row, error in enumerate(errors) if error is None]
        found = [self.found(batch.captions[row] or "") for row in rows]
        return {
            "words_found": spread(map(len, found), rows, len(batch)),
            "words": spread(found, rows, len(batch)),
            "error": errors,
        }

    def found(self, caption: str) -> list[str]:
        """The entries that occur, each once, the shortest first, then in the caption's order."""
        words = self.tokens(within(caption))
        runs = (
            " ".join(words[start : start + length])
            for length in self.lengths
            for start in range(len(words) - length + 1)
        )
        return list(dict.fromkeys(self.entries[run] for run in runs if run in self.entries))

    def tokens(self, text: str) -> list[str]:
        """The words of a text."""
        cased = text.casefold() if self.config.ignore_case else text
        return cased.translate(self.apart).split()


def within(caption: str) -> str:
    """The words that end within MAX_CHARACTERS: what is cut in two is no word."""
    if len(caption) <= MAX_CHARACTERS:
        return caption
    kept = caption[: MAX_CHARACTERS + 1]
    words = kept.split()
    return " ".join(words if kept[-1].isspace() else words[:-1])


def load(config: WordListScorer) -> list[str]:
    """The entries of the file. Raises ValueError with its name and the remedy."""
    try:
        lines = Path(config.words).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"scorer {config.name}: no word list in {config.words} ({one_line(error)}); it must be "
            "a text file in UTF-8 with one entry a line"
        ) from error
    entries = [line.strip() for line in lines if not line.startswith(COMMENT)]
    if not any(entries):
        raise ValueError(f"scorer {config.name}: the word list {config.words} has no entries")
    return [entry for entry in entries if entry]
