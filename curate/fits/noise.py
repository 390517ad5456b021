"""Noise: what mismatches look like to a scorer, and how many of the pool's pairs look so.

1. Draw reference sets, and at most `max_pairs` pairs with the lowest hash(seed, uid).
2. Their losses; and the losses of pairs that are wrong for certain: each image with the captions of
the next pairs in the order of the hash, unless they share the image or the caption.
3. Of the two, the noise rate with its interval (models/noise_rate.py), and the mixture
(models/mixture.py).

Of a bootstrap a loss is always by the model that held the pair out, among pairs that it held out
too, so that a true pair is not told from a wrong one by memory. The losses of all folds are one
sample: on 4 000 drawings, 3 trainings of 2 and 4 folds, mismatches' mean losses differed between
folds by at most 0.17 of a deviation of 1.8; the planted swaps' AUC was the same over all pairs as
within folds (0.886, 0.894, 0.907, to 0.001), and a fit per fold gave less: wider intervals, and a
Brier score of `noise_prob` of 0.133 for 0.132, 0.120 for 0.119, 0.122 for 0.118.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from curate.dataset import Dataset
from curate.fits.references import drawn_by_fold, gather, key_of, reference_sets, require
from models.contrast import Array, Pairs, References, contrastive_loss, load_spaces
from models.mixture import fit_mixture
from models.noise_rate import noise_rate
from models.scorers.noise import FIT
from schemas.configs import NoiseScorer, Workers

ROLLS = 3  # wrong captions per image: the null's tail is then known better than the pool's
ROWS = 8192  # pairs in memory at once
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)

log = logging.getLogger(__name__)


def fit(data: Dataset, config: NoiseScorer, workers: Workers | int = 0) -> str:
    """Fit at this version, and say the noise rate; returns the artifact's key.

    Raises ValueError where the scorer that it reads has stored too little.
    """
    table = require(data, config)
    key = key_of(data, config, table)
    folder = data.artifact(config.name, key, lambda made: _make(data, config, table, Path(made)))
    found = json.loads(data.fs.cat_file(f"{folder}/{FIT}"))
    log.info(
        "%s: %.1f %% of the pool look like mismatches (95 %% interval %.1f to %.1f), by %d pairs",
        config.name,
        *(100 * found[name] for name in ("noise_rate", "lower", "upper")),
        found["pairs"],
    )
    return key


def _make(data: Dataset, config: NoiseScorer, table: str, folder: Path) -> None:
    reference_sets(data, table, config, folder)
    spaces = load_spaces(folder)
    with tempfile.TemporaryDirectory(prefix="curate-") as scratch:
        uids = drawn_by_fold(data, table, config.seed, "noise", config.max_pairs)
        folds = gather(data, table, uids, Path(scratch))
        found = fitted([(pairs, spaces[fold]) for fold, pairs in folds.items()], config)
    (folder / FIT).write_text(json.dumps(found, indent=1))


def fitted(folds: Sequence[tuple[Pairs, References]], config: NoiseScorer) -> dict[str, Any]:
    """What is known of a pool by a sample of its pairs, JSON-ready: the noise rate, the mixture,
    and quantiles of the losses of the pairs and of mismatches made of them.

    folds: of each fold its pairs and reference sets, one where the pool is embedded in one space.
    Raises ValueError where no two pairs of a fold differ in image and caption.
    """
    both = zip(*(losses_of(*fold, config.temperature) for fold in folds), strict=True)
    true, wrong = (np.concatenate(losses) for losses in both)
    if not len(true) or not len(wrong):
        raise ValueError(
            f"scorer {config.name!r} compares pairs with others; the"
            f" {sum(len(pairs) for pairs, _ in folds)} that"
            f" {config.of!r} scored are too few, or share their images or captions: leave it out"
        )
    rate = noise_rate(true, wrong, config.seed)
    return {
        "pairs": len(true),
        **asdict(rate),
        "mixture": asdict(fit_mixture(true, wrong, rate.noise_rate)),
        "quantiles": QUANTILES,
        "losses": np.quantile(true, QUANTILES).tolist(),
        "losses_of_mismatches": np.quantile(wrong, QUANTILES).tolist(),
    }


def losses_of(pairs: Pairs, references: References, temperature: float) -> tuple[Array, Array]:
    """Of the pairs, and of mismatches made of them: of all that can be compared."""
    true = [contrastive_loss(chunk, references, temperature) for chunk in blocks(pairs)]
    wrong = [contrastive_loss(c, references, temperature, True) for c in mismatches(pairs)]
    both = (np.concatenate([np.empty(0), *losses]) for losses in (true, wrong))
    true_known, wrong_known = (losses[np.isfinite(losses)] for losses in both)
    return true_known, wrong_known


def blocks(pairs: Pairs) -> Iterator[Pairs]:
    """The pairs as they are, ROWS at once."""
    for start in range(0, len(pairs), ROWS):
        rows = slice(start, start + ROWS)
        yield Pairs(pairs.images[rows], pairs.texts[rows], pairs.scores[rows], pairs.codes[rows])


def mismatches(pairs: Pairs) -> Iterator[Pairs]:
    """Every image with the caption of the next pair, then of the one after it, and so on; not
    where the two pairs share their image or caption.
    """
    n = len(pairs)
    for by in range(1, min(ROLLS, n - 1) + 1):
        for start in range(0, n, ROWS):
            mine = np.arange(start, min(start + ROWS, n))
            other = (mine + by) % n
            wrong = (pairs.codes[mine] != pairs.codes[other]).all(axis=1)
            mine, other = mine[wrong], other[wrong]
            images, texts = pairs.images[mine], pairs.texts[other]
            codes = np.stack([pairs.codes[mine, 0], pairs.codes[other, 1]], axis=1)
            cosines = np.sum(images.astype(np.float32) * texts.astype(np.float32), axis=1)
            yield Pairs(images, texts, cosines, codes)
