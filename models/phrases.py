"""The phrases that captions have most: words and pairs of neighbouring words, without those that
say nothing by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from models.vocabulary import MAX_WORD, words

# English words that hold sentences together, and those that name the medium
_STOP = """
    a about above after against all an and any are as at be been before being below between both
    but by can could did do does down each for from further had has have he her here hers him
    his how i if in into is it its itself just me more most my no nor not of off on once only or
    other our out over own s same she should so some such t than that the their them then there
    these they this those through to too under until up us very was we were what when where
    which while who why will with you your image photo picture
"""
STOP_WORDS = frozenset(_STOP.split())
Phrase = tuple[str, ...]


def frequent_phrases(captions: Iterable[str], count: int) -> list[Phrase]:
    """The `count` words and pairs of words that the most captions have; ties alphabetically.

    Memory grows with the distinct pairs; give it a sample of a large pool.
    """
    seen: Counter[Phrase] = Counter()
    for caption in captions:
        said = list(words(caption))
        telling = [_tells(word) for word in said]
        single = {(word,) for word, tells in zip(said, telling, strict=True) if tells}
        both = zip(pairwise(said), pairwise(telling), strict=True)
        seen.update(single | {pair for pair, tells in both if all(tells)})
    return sorted(seen, key=lambda phrase: (-seen[phrase], phrase))[:count]


def _tells(word: str) -> bool:
    """One letter says something where it is a word of its script."""
    return word not in STOP_WORDS and len(word) <= MAX_WORD and (len(word) > 1 or word > "\x7f")
