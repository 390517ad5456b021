"""negCLIPLoss: the cosine of a pair less what its image and its caption have with others, so that
a caption that fits everything does not pass for one that fits this image.

    NCL = s - (tau / 2) (logsumexp_j(v . t_j / tau) + logsumexp_j(v_j . t / tau))

(Wang et al. 2024, 2405.19547, equation 2), the mean over `rounds` random batches that are drawn by
hash(seed, round, uid); it is -tau times the contrastive loss of models/contrast.py, which says who
counts as another. At most 0; 0 would be a pair that nothing else comes near. Of a bootstrap the
batches are of the pair's own fold, and all embeddings by the model that held it out.

Cost at the defaults: 655 360 similarities a pair, at 512 numbers an embedding 29 000 CPU seconds
per million pairs, in 300 MB beside the batches. It is one matrix product, so a GPU is used where
there is one; without, ask for `batch: 4096` and 3 600 seconds.
"""

from __future__ import annotations

from pathlib import Path

from models.base import Batch, Columns
from models.scorers.stored import load_references, losses
from schemas.configs import NclScorer


class Ncl:
    """Scores pairs from the batch columns `image_emb`, `text_emb`, `clip_score`, and
    `samples__sha256`, by which copies are known; where there is a `fold`, from `own_image_emb` and
    `own_text_emb`."""

    def __init__(self, config: NclScorer, artifact: Path | None) -> None:
        self.config = config
        self.spaces = load_references(artifact, config.name)

    def __call__(self, batch: Batch) -> Columns:
        tau = self.config.temperature
        found, errors = losses(batch, self.spaces, tau, self.config.name, self.config.of)
        return {
            "ncl_score": [None if loss is None else -tau * loss for loss in found],
            "error": errors,
        }
