"""The pool's clusters, and how many reference images each of them holds, fitted once.

    centroids.npy    float32 (k, d), of spherical k-means on a sample of the pool's images
    counts.npy       int64 (k,): references that are nearest to each centroid
    references.npy   float32 (n, d), unit length; where similarities are asked for

Fitting is one thread's work, so that its bits depend on no machine's size: at 768 numbers an
embedding 256 000 images and 1 000 clusters take 2 minutes, 100 000 clusters 3 hours.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.claims import digest
from curate.dataset import Dataset
from curate.fits.references import drawn, require, space_of
from models.kmeans import Matrix, fit_centroids, unit_rows
from models.nearest import Nearest
from models.scorers.near_reference import CENTROIDS, COUNTS, REFERENCES
from schemas.configs import NearReferenceScorer, Workers

MOST_CLUSTERS = 100_000  # DataComp's
MATRIX = 2  # dimensions of an array of embeddings


def fit(data: Dataset, config: NearReferenceScorer, workers: Workers | int = 0) -> str:
    """Cluster the pool at this version and count the references; returns the artifact's key, which
    depends on the bytes of their file.

    Raises ValueError where the scorer that it reads has stored no image embeddings, and for a file
    that is no array of them.
    """
    table = require(data, config, ("image_emb",))
    path = Path(config.references)
    try:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{_said(config)} cannot be read: {error}") from error
    state = [config.claimed(), data.fingerprint(["urls", "samples", table]), content]
    key = f"{space_of(data, table)}-{digest(state)}"
    data.artifact(config.name, key, lambda made: _make(data, config, table, Path(made)))
    return key


def _make(data: Dataset, config: NearReferenceScorer, table: str, folder: Path) -> None:
    references = load_references(config.references, _said(config))
    uids = drawn(data, table, config.seed, "near_reference", config.train_rows, "image_emb NOTNULL")
    sample = _gathered(data, table, uids)
    if not len(sample):
        raise ValueError(f"{table} of {data.root} has no pair with an image embedding")
    if sample.shape[1] != references.shape[1]:
        raise ValueError(
            f"{_said(config)} have {references.shape[1]} values each, the embeddings of {table} "
            f"{sample.shape[1]}: use one model for both"
        )
    clusters = config.clusters or min(MOST_CLUSTERS, max(1, round(data.rows(table) ** 0.5)))
    centroids = fit_centroids(sample, clusters, config.iterations, config.seed)
    counts = np.bincount(Nearest(centroids)(references)[0], minlength=len(centroids))
    np.save(folder / CENTROIDS, centroids)
    np.save(folder / COUNTS, counts.astype(np.int64))
    if config.similarity:
        np.save(folder / REFERENCES, references)


def _gathered(data: Dataset, table: str, uids: list[str]) -> Matrix:
    """Unit image embeddings of these pairs, by uid: what they are does not depend on the parts."""
    wanted, rows = pa.array(uids, pa.string()), []
    for part in sorted(data.parts(table)):
        some = data.read(table, part, ["uid", "image_emb"])
        rows.append(some.filter(pc.is_in(some["uid"], wanted)))
    if not any(some.num_rows for some in rows):
        return np.zeros((0, 0), np.float32)
    vectors, known = unit_rows(pa.concat_tables(rows).sort_by("uid")["image_emb"])
    return vectors[known & vectors.any(axis=1)]


def load_references(file: str, said: str) -> Matrix:
    """Unit rows (n, d) of an .npy or .safetensors. Raises ValueError with `said` of the file, what
    it holds and what it should.
    """
    path = Path(file)
    try:
        found = _tensor(path) if path.suffix == ".safetensors" else np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{said} cannot be read: {error}") from error
    shape = list(found.shape)
    if found.ndim != MATRIX or not found.size or not np.issubdtype(found.dtype, np.floating):
        raise ValueError(f"{said} are {found.dtype} {shape}, must be floats (n, d)")
    rows = found.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        bad = int((~np.isfinite(lengths) | (lengths == 0)).sum())
        raise ValueError(f"{said}: {bad} of {len(rows)} rows are no direction: drop them")
    return np.asarray(rows / lengths, np.float32)


def _tensor(path: Path) -> Matrix:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if len(tensors) != 1:
        raise ValueError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not one tensor")
    (tensor,) = tensors.values()
    return np.asarray(tensor.float().numpy())


def _said(config: NearReferenceScorer) -> str:
    return f"scorer {config.name!r}: the references {config.references}"
