"""Image-text retrieval: recall@k both ways, named as CLIP_benchmark names them.

text_retrieval_recall@k: of the images, the share for which one of their captions is among the k
best of all captions.
image_retrieval_recall@k: of the captions, the share for which an image that has it is among the k
best of all images.
recall@k: the mean of both. A caption that several images have counts once and any of those images
is right; where all captions differ, as in COCO but for a handful, this is the usual number. Ties
count as their expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.encoder import Encoder
from curate.metrics.sets import captioned, pixels
from curate.metrics.ties import expected_hits
from schemas.configs import Retrieval

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 1024  # queries compared at once


def retrieval(encoder: Encoder, config: Retrieval) -> list[dict[str, Any]]:
    """Rows of metric, value and n, the number of queries."""
    images, captions = captioned(config.path)
    texts = list(dict.fromkeys(text for own in captions for text in own))
    place = {text: i for i, text in enumerate(texts)}
    owned = [[place[text] for text in own] for own in captions]
    found = recalls(
        encoder.embed_images(pixels(images)), encoder.embed_texts(texts), owned, config.ks
    )
    counts = {"text_retrieval_recall": len(images), "image_retrieval_recall": len(texts)}
    return [
        {
            "metric": f"{config.name}/{name}",
            "value": value,
            "n": counts.get(name.split("@")[0], len(images) + len(texts)),
        }
        for name, value in found.items()
    ]


def recalls(
    image_emb: Array, text_emb: Array, owned: Sequence[Sequence[int]], ks: Sequence[int]
) -> dict[str, float]:
    """Recalls by name, in 0..1.

    image_emb (n, d), text_emb (m, d): L2-normalised. owned[i]: the texts of image i, at least one;
    each text has an owner.
    """
    images = np.concatenate([np.full(len(own), i) for i, own in enumerate(owned)])
    texts = np.concatenate([np.asarray(own, np.int64) for own in owned])
    to_text = _recall(image_emb, text_emb, images, texts, ks)
    to_image = _recall(text_emb, image_emb, texts, images, ks)
    found: dict[str, float] = {}
    for k in ks:
        found[f"text_retrieval_recall@{k}"] = to_text[k]
        found[f"image_retrieval_recall@{k}"] = to_image[k]
        found[f"recall@{k}"] = (to_text[k] + to_image[k]) / 2
    return found


def _recall(
    queries: Array, candidates: Array, rows: Array, columns: Array, ks: Sequence[int]
) -> dict[int, float]:
    """Mean hit per k; (rows[i], columns[i]) are the right pairs. A block of queries at a time."""
    totals = dict.fromkeys(ks, 0.0)
    for begin in range(0, len(queries), BLOCK):
        block = queries[begin : begin + BLOCK]
        inside = (rows >= begin) & (rows < begin + len(block))
        right = np.zeros((len(block), len(candidates)), bool)
        right[rows[inside] - begin, columns[inside]] = True
        scores = block @ candidates.T
        for k in ks:
            totals[k] += float(expected_hits(scores, right, k).sum())
    return {k: total / len(queries) for k, total in totals.items()}
