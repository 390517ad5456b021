"""What negCLIPLoss compares with: `rounds` batches of the pool, or of each fold of a cross-fitted
scorer, drawn by hash, fitted once.

At the defaults and 512 numbers per embedding the batches, a fold's where there are folds, are
671 MB on disk and mapped into memory, not read into it.
"""

from __future__ import annotations

from pathlib import Path

from curate.dataset import Dataset
from curate.fits.references import key_of, reference_sets, require
from schemas.configs import NclScorer, Workers


def fit(data: Dataset, config: NclScorer, workers: Workers | int = 0) -> str:
    """Draw and gather the batches at this version; returns the artifact's key.

    Raises ValueError where the scorer that it reads has stored nothing.
    """
    table = require(data, config)
    key = key_of(data, config, table)

    def make(folder: str) -> None:
        reference_sets(data, table, config, Path(folder))

    data.artifact(config.name, key, make)
    return key
