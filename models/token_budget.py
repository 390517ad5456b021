"""Token budget: an original and a generated caption in one text that a tokenizer's context holds.

TL;DR (2305.20087) joins the two and cuts at 30 tokens, so that a long original leaves nothing of
the generated one (its own limitation). Here room is reserved for the generated one first:

1. The generated caption may have `reserve` of the budget, and what the original leaves of the rest.
2. The original gets what is left, cut at its end.

Cuts are between words; a single word that is too long is cut within.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from models.vocabulary import words

Count = Callable[[str], int]
WORD = re.compile(r"\s*\S+")
WORDS = "words"  # the tokenizer whose tokens are models.vocabulary's words
SPECIAL = 2  # tokens of every context that are no text: start and end


def counter(tokenizer: str) -> Count:
    """How many tokens a text takes: words, or those of an open_clip model's tokenizer by its name.

    Raises ValueError for a name that open_clip does not know or a tokenizer that cannot be had.
    """
    if tokenizer == WORDS:
        return lambda text: sum(1 for _ in words(text))
    import open_clip

    try:
        if ":" not in tokenizer and open_clip.get_model_config(tokenizer) is None:
            raise ValueError("open_clip has no such architecture")
        found = open_clip.get_tokenizer(tokenizer)
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError, KeyError) as error:
        raise ValueError(
            f"tokenizer {tokenizer!r} cannot be had ({' '.join(str(error).split())[:200]}); give"
            f" {WORDS!r} or an open_clip model's name"
        ) from error
    encode = getattr(found, "encode", None) or found.tokenizer.encode
    return lambda text: len(encode(text))


def joined(
    original: str, generated: str, budget: int, reserve: float, separator: str, count: Count
) -> str:
    """Both captions within `budget` tokens, the original first; one alone where the other is empty.

    budget: tokens of text, start and end aside. reserve: share of it, 0..1, that the generated one
    has for certain.
    """
    original, generated = original.strip(), generated.strip()
    if not original or not generated:
        return cut(original or generated, budget, count)
    left = max(0, budget - count(separator))
    kept = max(int(left * reserve), left - count(original))
    generated = cut(generated, kept, count)
    original = cut(original, left - count(generated), count)
    text = separator.join(part for part in (original, generated) if part)
    while count(text) > budget and original:  # tokens of the parts need not add up
        original = cut(original, count(original) - 1, count)
        text = separator.join(part for part in (original, generated) if part)
    return text if count(text) <= budget else cut(text, budget, count)


def cut(text: str, tokens: int, count: Count) -> str:
    """The longest beginning of whole words with at most so many tokens; of a first word that has
    more, its beginning.
    """
    if tokens <= 0:
        return ""
    ends = [match.end() for match in WORD.finditer(text)]
    if not ends or count(text) <= tokens:
        return text
    fits = _last(len(ends), lambda n: count(text[: ends[n - 1]]) <= tokens)
    if fits:
        return text[: ends[fits - 1]].strip()
    first = text[: ends[0]].strip()
    return first[: _last(len(first), lambda n: count(first[:n]) <= tokens)]


def _last(most: int, holds: Callable[[int], bool]) -> int:
    """The largest n of 1 .. most that holds, where the smaller ones do; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
