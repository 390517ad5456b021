"""How near an image comes to reference images: `near_reference`, how many of them are nearest to
the centroid that it is nearest to (Gadre et al. 2023, DataComp, image-based filtering: at least
one), and `reference_similarity`, its cosine to the nearest of them (NormSim-infinity, Wang et al.
2024).

Cost: one product with every centroid and every reference; at 768 numbers an embedding, 100 000
centroids take 2 200 CPU seconds per million images, and ImageNet's 1.28 million images 13 times
that. A GPU is used where there is one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.base import Batch, Columns
from models.nearest import Nearest
from models.scorers.pairs import Array, spread
from models.scorers.stored import directions
from schemas.configs import NearReferenceScorer

CENTROIDS, COUNTS, REFERENCES = "centroids.npy", "counts.npy", "references.npy"


class NearReference:
    """Reads the batch column `image_emb`; captions are not looked at."""

    def __init__(self, config: NearReferenceScorer, artifact: Path | None) -> None:
        if artifact is None:
            raise ValueError(
                f"scorer {config.name}: is fitted on a pool first; no folder of centroids was given"
            )
        self.config = config
        centroids = load(artifact / CENTROIDS)
        self.dim = centroids.shape[1]
        self.clusters, self.counts = Nearest(centroids), load(artifact / COUNTS)
        self.references = Nearest(load(artifact / REFERENCES)) if config.similarity else None

    def __call__(self, batch: Batch) -> Columns:
        config = self.config
        expected = f"the references {config.references} have {self.dim}; use one model for both"
        images, rows, errors = directions(batch, config.name, config.of, self.dim, expected)
        for row in rows:
            errors[row] = None
        clusters, _ = self.clusters(images)
        near = self.references(images)[1].tolist() if self.references else [None] * len(rows)
        return {
            "near_reference": spread(self.counts[clusters].tolist(), rows, len(batch)),
            "reference_similarity": spread(near, rows, len(batch)),
            "error": errors,
        }


def load(path: Path) -> Array:
    """An array mapped into memory: workers of one machine share the pages. It looks writable, as
    torch wants it; the file does not change.
    """
    found: Array = np.load(path, mmap_mode="c")
    return found
