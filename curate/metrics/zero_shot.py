"""Zero-shot classification (CLIP, section 3.1): acc1, acc5, mean_per_class_recall.

A class is the mean of its prompts' embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.encoder import Encoder
from curate.metrics.sets import labelled, pixels
from curate.metrics.ties import expected_hits
from schemas.configs import ZeroShot

Array = np.ndarray[Any, np.dtype[Any]]
FEW = 5  # classes: acc5 says nothing then, and is left out


def zero_shot(encoder: Encoder, config: ZeroShot) -> list[dict[str, Any]]:
    """Rows of metric, value and n, the number of images.

    A set's own templates are used unless the config gives some.
    """
    images, labels, classes, own = labelled(config.path)
    templates = config.templates if own is None or "templates" in config.model_fields_set else own
    found = accuracies(
        encoder.embed_images(pixels(images)),
        prototypes(encoder, classes, templates),
        np.asarray(labels),
    )
    return [
        {"metric": f"{config.name}/{name}", "value": value, "n": len(images)}
        for name, value in found.items()
    ]


def prototypes(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> Array:
    """L2-normalised float32 (classes, d). The order of templates changes nothing.

    Raises ValueError for one without a place.
    """
    prompts = sorted(set(templates))
    if bad := [t for t in prompts if "{}" not in t and "{c}" not in t]:
        raise ValueError(
            f"template {bad[0]!r} has no place for the class; write {{}} where its name goes"
        )
    texts = [
        prompt.replace("{c}", name).replace("{}", name) for name in classes for prompt in prompts
    ]
    embedded = encoder.embed_texts(texts).reshape(len(classes), len(prompts), -1).mean(axis=1)
    norms = np.linalg.norm(embedded, axis=1, keepdims=True)
    return np.asarray(embedded / np.maximum(norms, 1e-12))


def accuracies(image_emb: Array, class_emb: Array, labels: Array) -> dict[str, float]:
    """Accuracies by name, in 0..1; ties count as their expectation.

    image_emb (n, d), class_emb (m, d): L2-normalised. labels: (n,) int, rows of `class_emb`.
    """
    scores = image_emb @ class_emb.T
    right = labels[:, None] == np.arange(len(class_emb))[None, :]
    first = expected_hits(scores, right, 1)
    found = {"acc1": float(first.mean())}
    if len(class_emb) > FEW:
        found["acc5"] = float(expected_hits(scores, right, FEW).mean())
    found["mean_per_class_recall"] = float(
        np.mean([first[labels == c].mean() for c in np.unique(labels)])
    )
    return found
