"""How likely a pair is a mismatch, by how hard its image and its caption find each other.

The loss is the contrastive one of models/contrast.py (NLIP, Huang et al. 2022, section 3.1; NEVLP:
what a model learns late is noise) under a scorer's stored embeddings, against fixed reference sets;
the probability is the noise component's of a mixture that was fitted to the pool and calibrated
with its noise rate, see models/mixture.py and models/noise_rate.py.

Of a bootstrap all is by the model that held the pair out: its cosine, and the others that it is
compared with, which are of its fold. On a pool of 4 000 drawings with swapped captions the loss has
an AUC of 0.886 where the cosine has 0.867; in fold 0 0.899 and 0.876, in fold 1 0.874 and 0.858.
By fold 0's model, which has seen the pairs of fold 1, these would have 0.857.

Cost at the defaults: 100 CPU seconds per million pairs of 128 numbers an embedding, 190 of 512.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.base import Batch, Columns
from models.mixture import Mixture
from models.scorers.stored import load_references, losses
from schemas.configs import NoiseScorer

FIT = "noise.json"


class Noise:
    """Scores pairs from the batch columns `image_emb`, `text_emb`, `clip_score`, and
    `samples__sha256`, by which copies are known; where there is a `fold`, from `own_image_emb` and
    `own_text_emb`."""

    def __init__(self, config: NoiseScorer, artifact: Path | None) -> None:
        self.config = config
        self.spaces = load_references(artifact, config.name)
        fitted = json.loads((Path(artifact or "") / FIT).read_text())
        self.mixture = Mixture(**fitted["mixture"])

    def __call__(self, batch: Batch) -> Columns:
        config = self.config
        found, errors = losses(batch, self.spaces, config.temperature, config.name, config.of)
        values = np.array([np.nan if loss is None else loss for loss in found], float)
        noisy = self.mixture.noise_prob(values).tolist()
        return {
            "loss": found,
            "noise_prob": [
                None if loss is None else prob for loss, prob in zip(found, noisy, strict=True)
            ],
            "error": errors,
        }
