"""NCL and NormSim: the best by negCLIPLoss, of these the most like reference images (2405.19547).
Pick it with the training images of what the model is for as references.

1. The best floor(N * by_fraction) of the pool's N pairs by `by` (top.best), logged.
2. NormSim of each of these, part by part on workers -> normsim_<name>. norm 2: sqrt(sum over the
   references r of (f.r)^2), which is sqrt(f M f) with M = the sum of r r^T; inf: the largest f.r.
3. The `count` with the highest, ties by uid.

Without references, 50 000 of the pool's own images drawn by hash stand for it; a pair is then not
compared with itself. A pair without an embedding is never selected. Of a million pairs, 300 000
with 512 dimensions against 50 000 references take 270 CPU seconds for inf, few for 2.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits.near_reference import load_references
from curate.selectors import top
from curate.selectors.normsim import Similarity, normsim
from curate.selectors.pool import Pool, embeddings_table, ranked
from models.kmeans import Matrix, unit_rows
from schemas.configs import NclNormSimSelector

OWN_REFERENCES = 50_000  # of the pool's images, where none are given
PURPOSE = "'normsim ' || uid"  # other draws than those of other units with the same seed

_OWN = """
SELECT uid, image_emb FROM {table} SEMI JOIN (
    SELECT uid FROM {table} SEMI JOIN pool USING (uid)
    WHERE caption_id = uid AND image_emb IS NOT NULL ORDER BY {draw}, uid LIMIT {rows}
) USING (uid) WHERE caption_id = uid ORDER BY uid
"""


def select(pool: Pool, config: NclNormSimSelector) -> str:
    """SQL of at most `count` pairs. Raises ValueError where `by` or the embeddings are not there,
    and for references that do not fit them.
    """
    from curate.query import quote, view_sql

    of = embeddings_table(pool, config.name, config.embeddings, "image_emb")
    top.best(pool, config.name, "by", config.by, config.by_fraction)
    data, table = pool.data, f"normsim_{config.name}"
    key = digest([config.claimed(), pool.state])
    fitted = data.artifact(table, key, lambda folder: _fit(pool, config, of, Path(folder)))
    claim = data.claim(table, config, of=(of,), artifact=key, revisable=True)
    norm = config.norm

    def build() -> Work:
        similarity, places = _similarity(data, fitted, norm)
        return lambda part: _measure(
            data, claim, f"{fitted}/best.parquet", similarity, places, part
        )

    run_parts(build, data.missing(claim), pool.workers, label=f"normsim {config.name}")
    data.publish(claim)
    pool.con.execute(view_sql(data, table))
    rows = f"SELECT uid, normsim FROM {quote(table)} SEMI JOIN best USING (uid)"
    return ranked(f"{rows} WHERE normsim IS NOT NULL", "normsim DESC, uid", pool.count)


def _fit(pool: Pool, config: NclNormSimSelector, table: str, folder: Path) -> None:
    """Leave references.npy, unit rows (n, d), uids.parquet of those that are the pool's own, and
    best.parquet (part, uid), sorted by part.
    """
    from curate.query import literal

    best = "SELECT part, uid FROM best ORDER BY part, uid"
    pool.con.execute(f"COPY ({best}) TO {literal(f'{folder}/best.parquet')} (FORMAT parquet)")
    uids, references = _references(pool, config, table)
    np.save(folder / "references.npy", references, allow_pickle=False)
    pq.write_table(pa.table({"uid": uids}), folder / "uids.parquet")


def _references(
    pool: Pool, config: NclNormSimSelector, table: str
) -> tuple[pa.ChunkedArray, Matrix]:
    """Their uids, none for given ones, and unit rows (n, d)."""
    from curate.query import draw_sql, select

    draw, own = draw_sql(config.seed, PURPOSE), config.references is None
    rows = OWN_REFERENCES if own else 1
    found = select(pool.con, _OWN.format(table=table, draw=draw, rows=rows))
    vectors, known = unit_rows(found["image_emb"])
    if config.references is None:
        return found["uid"].filter(pa.array(known)), vectors[known]
    said = f"selector {config.name!r}: the references {config.references}"
    references = load_references(config.references, said)
    if len(vectors) and references.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"{said} have {references.shape[1]} values each, the embeddings of {table} "
            f"{vectors.shape[1]}: use one model for both"
        )
    return pa.chunked_array([pa.array([], pa.string())]), references


def _similarity(data: Dataset, fitted: str, norm: str) -> tuple[Similarity, dict[str, int]]:
    """What measures rows, and the places of pairs among the references, by uid."""
    stored = data.fs.cat_file(f"{fitted}/references.npy")
    references: Matrix = np.load(io.BytesIO(stored), allow_pickle=False)
    own = pq.read_table(pa.BufferReader(data.fs.cat_file(f"{fitted}/uids.parquet")))
    places = {uid: place for place, uid in enumerate(own["uid"].to_pylist())}
    return normsim(references, norm), places


def _measure(
    data: Dataset,
    claim: Claim,
    best: str,
    similarity: Similarity,
    places: dict[str, int],
    part: int,
) -> Stats:
    with data.fs.open(best, "rb") as stream:
        uids = pq.read_table(stream, columns=["uid"], filters=[("part", "=", part)])["uid"]
    scores = data.read(claim.of[0], part, ["uid", "caption_id", "image_emb"])
    scores = scores.filter(pc.equal(scores["uid"], scores["caption_id"]))
    scores = scores.filter(pc.is_in(scores["uid"], uids.combine_chunks()))
    rows, known = unit_rows(scores["image_emb"])
    but = np.array([places.get(uid, -1) for uid in scores["uid"].to_pylist()], np.int64)
    found = similarity(rows, but) if rows.shape[1] else np.zeros(len(rows), np.float32)
    values = pa.array(found, pa.float32(), mask=~known)
    data.write(claim, part, pa.table({"uid": scores["uid"], "normsim": values}))
    return {"rows": len(scores)}
