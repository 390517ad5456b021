"""N-grams: a caption as a set of word n-grams, its MinHash, and the LSH bands of that.

1. Normalise: NFKC, casefold, punctuation to spaces, format characters (marks of direction, zero
   width) away, white space collapsed. A character of a script that is written without spaces
   (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own.
2. The set of the n-grams of the first LONGEST + n - 1 words; a shorter caption is its one n-gram.
   N-grams are told apart by 64 bits of their sha1.
3. MinHash by datasketch (affine32), cut into bands of r hashes: two sets agree in a band with
   probability J^r, J their Jaccard similarity.
"""

from __future__ import annotations

import hashlib
import re
import string
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.configs import TextDuplicates

LONGEST = 1000  # n-grams of a caption that are looked at: a 10 MB caption is no text to compare
# of a missed pair against one that is compared for nothing: each candidate is compared exactly, so
# that the latter costs a microsecond
_WEIGHTS = (0.02, 0.98)
_STRICTEST = 0.95  # threshold that the bands are made for, at most: from there they find 1.0 surely
_NO_SPACES = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)
_PRIME = np.uint64(0x9E3779B97F4A7C15)
Words = np.ndarray[Any, np.dtype[np.uint64]]


def bands_of(config: TextDuplicates) -> tuple[int, int]:
    """How many bands, and hashes in each: datasketch's optimum for the threshold, a missed pair
    weighing 49 times one that is compared for nothing.
    """
    from datasketch import MinHashLSH

    threshold = min(config.threshold, _STRICTEST)
    lsh = MinHashLSH(threshold=threshold, num_perm=config.num_perm, weights=_WEIGHTS)
    return int(lsh.b), int(lsh.r)


def promised_recall(config: TextDuplicates, similarity: float) -> float:
    """Share of the pairs of this Jaccard similarity that agree in a band: the S-curve."""
    bands, rows = bands_of(config)
    return float(1 - (1 - similarity**rows) ** bands)


def normalised(caption: str | None) -> str:
    """A caption as it is compared; "" for one that says nothing."""
    text = unicodedata.normalize("NFKC", caption or "").casefold().translate(_spaces())
    return " ".join(_NO_SPACES.sub(r" \1 ", text).split())


@cache
def _spaces() -> dict[int, str]:
    """What becomes of punctuation and format characters."""
    kinds = {code: unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)}
    table = {code: " " for code, kind in kinds.items() if kind.startswith("P")}
    table |= {code: "" for code, kind in kinds.items() if kind == "Cf"}
    return table | {ord(mark): " " for mark in string.punctuation}


def ngrams(text: str, size: int) -> set[str]:
    """The word n-grams of a normalised text that is not empty."""
    words = text.split(" ", LONGEST + size)[: LONGEST + size - 1]
    last = max(1, len(words) - size + 1)
    return {" ".join(words[at : at + size]) for at in range(last)}


def signed(uids: Sequence[str], captions: Sequence[str | None], config: TextDuplicates) -> pa.Table:
    """uid, text (128 bits of sha256 of the normalised caption), grams (64 bits of each, sorted) and
    band_0, band_1, ... of the captions that say something.
    """
    texts: dict[str, int] = {}
    rows, at = [], []
    for row, caption in enumerate(captions):
        if text := normalised(caption):
            rows.append(uids[row])
            at.append(texts.setdefault(text, len(texts)))
    grams = [_hashes(ngrams(text, config.ngram)) for text in texts]
    keys = [hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16] for text in texts]
    bands = _bands(grams, config)
    columns = {
        "text": pa.array(keys, pa.binary()),
        "grams": pa.array(grams, pa.list_(pa.uint64())),
        **{f"band_{number}": pa.array(values) for number, values in enumerate(bands)},
    }
    distinct = pa.table(columns).take(pa.array(at, pa.int64()))
    return distinct.add_column(0, "uid", pa.array(rows, pa.string()))


def _hashes(grams: set[str]) -> list[int]:
    from datasketch import sha1_hash64

    return sorted({sha1_hash64(gram.encode("utf-8", "replace")) for gram in grams})


def _bands(grams: Sequence[list[int]], config: TextDuplicates) -> Words:
    """bands x texts: the hashes of each band as one number."""
    from datasketch import MinHash

    bands, rows = bands_of(config)
    halves = ([gram & 0xFFFFFFFF for gram in some] for some in grams)
    knobs = {"num_perm": config.num_perm, "seed": config.seed, "scheme": "affine32"}
    made = [m.hashvalues for m in MinHash.generator(halves, hashfunc=int, **knobs)]
    hashes = np.array(made, dtype=np.uint64).reshape(len(made), config.num_perm)
    found = np.zeros((bands, len(made)), dtype=np.uint64)
    for row in range(rows):
        found = mixed(found * _PRIME + hashes[:, row : bands * rows : rows].T)
    return found


def mixed(values: Words) -> Words:
    """Numbers whose bits depend on all bits of the given ones, one to one (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
