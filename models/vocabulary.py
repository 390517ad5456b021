"""A word-level tokenizer learned from captions, for text towers that are too small for a table of
49 408 rows.

Ids: 0 padding, 1 unknown, then the words by rank, then start, then end. `end` is the highest id, so
that open_clip's default pooling (`argmax`) reads the text there; the causal mask keeps padding,
which follows it, out of sight. A word that was not learned becomes `unknown`: it was too rare for
its own row to be trained, and a row shared with whatever hashes to the same bucket would say less
than "a rare word".
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path

import numpy as np

PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2
SPECIAL = 4  # padding, unknown, start, end
MAX_WORD = 40  # characters: longer ones are keys, hashes and base64, and are never learned
MAX_TEXT = 100_000  # characters that are looked at: more than any context holds
# Thai, Lao, Khmer, kana, Han
UNSPACED = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(
    f"[{UNSPACED}]|[^\\W_{UNSPACED}]+"
)  # a character of those, a run of letters and digits of others

UNSPACED_GAP = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")


def words(text: str) -> Iterator[str]:
    """The words of a text, lower case, compatibility forms folded (NFKC); punctuation is left
    out."""
    folded = unicodedata.normalize("NFKC", text[:MAX_TEXT]).lower()
    return (match.group() for match in WORD.finditer(folded))


class Vocabulary:
    """Words by rank; `size` counts ids, the special ones included."""

    def __init__(self, ranked: Iterable[str]) -> None:
        self.words = tuple(ranked)
        self.size = len(self.words) + SPECIAL
        self.start, self.end = self.size - 2, self.size - 1
        self._ids = {word: FIRST_WORD + rank for rank, word in enumerate(self.words)}

    @classmethod
    def learn(cls, captions: Iterable[str], size: int) -> Vocabulary:
        """The `size` words that the most captions have, ties alphabetically: the order of captions
        changes nothing.

        Memory grows with the distinct words; give it a sample of a large pool.
        """
        seen: Counter[str] = Counter()
        for caption in captions:
            seen.update({word for word in words(caption) if len(word) <= MAX_WORD})
        return cls(sorted(seen, key=lambda word: (-seen[word], word))[:size])

    def encode(
        self, texts: Iterable[str], context_length: int
    ) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Ids as int64 (n, context_length): start, words, end, padding; words beyond the context
        are cut."""
        rows = [self._encode(text, context_length) for text in texts]
        return np.array(rows, np.int64).reshape(-1, context_length)

    def _encode(self, text: str, context_length: int) -> list[int]:
        ids = [self._ids.get(word, UNKNOWN) for word in islice(words(text), context_length - 2)]
        return [self.start, *ids, self.end] + [PADDING] * (context_length - 2 - len(ids))

    def id_of(self, word: str) -> int:
        """A word's id; UNKNOWN where it was not learned."""
        return self._ids.get(word, UNKNOWN)

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ids up to `end`, special ones left out; a blank between two words, none
        where scripts have none. Of the texts that are encoded alike it is the plainest.
        """
        said = list(takewhile(lambda i: i != self.end, ids))
        text = " ".join(self.words[i - FIRST_WORD] for i in said if FIRST_WORD <= i < self.start)
        return UNSPACED_GAP.sub("", text)

    def save(self, path: Path) -> None:
        """Write as JSON; equal vocabularies give equal bytes."""
        path.write_text(json.dumps({"format": "curate-words-1", "words": self.words}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote. Raises ValueError with the path where it is something else."""
        try:
            raw = json.loads(path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path}: no vocabulary ({type(error).__name__}); fit the scorer again"
            ) from error
        if not isinstance(raw, dict) or raw.get("format") != "curate-words-1":
            raise ValueError(
                f"{path}: not a vocabulary of format curate-words-1; fit the scorer again"
            )
        return cls(raw["words"])
