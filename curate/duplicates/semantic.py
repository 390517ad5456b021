"""Semantic copies: embeddings with a cosine of at least 1 - eps, compared within clusters
(SemDeDup, 2303.09540).

1. Centroids by spherical k-means on a sample (fits/clusters.py): fitted by the first search; later
   ones, whose pairs are fresh, keep them while the embeddings are of the same space.
2. Each pair's cluster and its distance from the centroid -> codes_duplicates_<name>, part by part.
3. The embeddings are sorted by cluster into files (inverted.py), one per group of parts.
4. A bucket is a range of clusters, read from all files; within each cluster the pairs are compared
   in blocks: all that are near (near.py), or who SemDeDup's code removes (ranked.py).

With `neighbours` the nearest other clusters are compared too, which finds pairs that a border
splits; it multiplies step 4's reads and products by up to 1 + 2 * neighbours.

Mode code and fresh pairs: earlier verdicts stand; a fresh pair comes after all earlier ones of
its cluster, and after the fresh ones that are farther from the centroid.

Measured at 200 000 pairs, 512 numbers each (447 clusters), in seconds of one core: fit 20, assign
4, sort 4, compare 3 (mode code 4, with two neighbours 9). By their growth a million pairs are 60,
45, 20 and 35: the fit grows as `train_rows` x clusters and is one thread's, assign and compare as N
to the 1.5 while there are sqrt(N) clusters, sort as N; these three spread over workers. The fit
peaks at 16 kB per training row (4.2 GB at the default), a worker at 0.8 GB. Per million pairs
1.1 GB are written, a sorted copy that stays for the next search, and 2.1 GB read.

A pair without an embedding, with one that is not finite or all zeros, or without an image is in no
edge. eps = 0 finds equal embeddings and compares nothing.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.duplicates import inverted
from curate.duplicates.clustered import Work, edges, partners_of, plan
from curate.duplicates.search import Scope, Search
from curate.engine import Stats, run_parts
from curate.engine import Work as PartWork
from curate.fits import clusters
from curate.fits.references import space_of
from models.kmeans import Matrix, unit_rows
from schemas.configs import SemanticDuplicates
from schemas.tables import CODES

MOST_CLUSTERS = 50_000  # SemDeDup's, for 440 M pairs
CLUSTERING = {"name", "embeddings", "column", "clusters", "train_rows", "iterations", "seed"}


def tables(config: SemanticDuplicates) -> tuple[str, ...]:
    """The tables that it reads."""
    return ("samples", f"scores_{config.embeddings}")


def find(scope: Scope, config: SemanticDuplicates) -> Search:
    """Search for downloaded pairs whose embeddings are near; distance is 1 - cosine.

    In mode code `uid` is the pair that removes `other_uid`, of which there is one edge. Raises
    ValueError where the embeddings are not there.
    """
    data = scope.data
    scores = clusters.table_of(data, config, "duplicate finder")
    key = _centroids(scope, config, scores)
    codes = _assign(scope, config, scores, key)
    centroids = clusters.load(data, codes, key)
    method = f"{config.name} {config.mode}"
    if not len(centroids):
        return Search(method, 1, _nothing)
    folder = f"{data.path}/_artifacts/inverted_{config.name}/{key}"
    shape = (len(centroids), centroids.shape[1])
    pairs = inverted.of_pairs(data, folder, codes, scores, config.column, shape, scope.workers)
    found, stars = f"duplicates_{config.name}", None
    if scope.fresh is not None and config.mode == "group" and found in data.tables():
        stars = inverted.of_stars(data, folder, codes, found, len(centroids))
    inverted.tidy(data, folder, *[made for made in (pairs, stars) if made])
    partners = partners_of(centroids, config.neighbours)
    bounds = plan(pairs.sizes(), partners, shape[1])
    work = Work(config, scope.fresh, pairs, stars, partners, bounds)
    return Search(method, len(bounds) - 1, partial(edges, work))


def _nothing(bucket: int) -> pa.Table:
    """The edges of a pool without embeddings."""
    ends = {"uid": pa.array([], pa.string()), "other_uid": pa.array([], pa.string())}
    distance, member = pa.array([], pa.float32()), pa.array([], pa.bool_())
    return pa.table({**ends, "distance": distance, "member": member})


def _clustering(config: SemanticDuplicates) -> SemanticDuplicates:
    """What of the config decides the clusters: with another eps they stay."""
    return SemanticDuplicates(**config.model_dump(include=CLUSTERING))


def _centroids(scope: Scope, config: SemanticDuplicates, scores: str) -> str:
    """Key of the artifact with the centroids; fitted where no earlier search has left them."""
    data, codes = scope.data, f"codes_duplicates_{config.name}"
    kept = f"{space_of(data, scores)}-{digest(_clustering(config).claimed())}-"
    used = data.artifact_in_use(codes)
    if scope.fresh is not None and used.startswith(kept):
        return used

    def make(folder: str) -> None:
        from curate.query import connect

        con = connect(data, only=["samples", scores])
        try:
            pairs = "SELECT uid FROM samples WHERE status = 'success'"
            clusters.fit(con, config, pairs, MOST_CLUSTERS, folder)
        finally:
            con.close()

    key = kept + digest(data.fingerprint(["samples", scores]))
    data.artifact(codes, key, make)
    return key


def _assign(scope: Scope, config: SemanticDuplicates, scores: str, key: str) -> str:
    """Name of the table with every pair's cluster and distance from its centroid."""
    data, codes = scope.data, f"codes_duplicates_{config.name}"
    claim = data.claim(
        codes, _clustering(config), of=(scores, "samples"), artifact=key, revisable=True
    )

    def build() -> PartWork:
        centroids = clusters.load(data, codes, key)
        return partial(_assign_part, data, claim, config.column, centroids)

    run_parts(build, data.missing(claim), scope.workers, label=f"assign {config.name}")
    data.publish(claim)
    return codes


def _assign_part(data: Dataset, claim: Claim, column: str, centroids: Matrix, part: int) -> Stats:
    have = clusters.originals(data, claim.of[0], part, column)
    samples = data.read("samples", part, ["uid", "status"])
    downloaded = samples.filter(pc.equal(samples["status"], "success"))
    have = have.filter(pc.is_in(have["uid"], downloaded["uid"].combine_chunks()))
    rows, known = unit_rows(have[column])
    known &= rows.any(axis=1) & (len(centroids) > 0)
    cluster = clusters.assigned(rows, centroids)
    distance = np.zeros(len(rows), dtype=np.float32)
    if known.any():
        distance = np.maximum(0, 1 - (rows * centroids[cluster]).sum(axis=1))
    columns = {
        "uid": have["uid"],
        "codes": pa.nulls(len(rows), CODES.field("codes").type),
        "cluster": pa.array(cluster.astype(np.int32), mask=~known),
        "distance": pa.array(distance.astype(np.float32), mask=~known),
    }
    data.write(claim, part, pa.table(columns))
    return {"rows": len(rows)}
