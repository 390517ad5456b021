"""Clusters of the pool by its stored embeddings: centroids that are fitted once, and every pair's
nearest one, part by part.

1. The `train_rows` pairs with the lowest draw(seed, uid), sorted by uid, are clustered by spherical
   k-means on one thread. So the order of the list and its parts change nothing.
2. A pair's cluster is the centroid with the largest cosine.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from models.kmeans import Matrix, fit_centroids, nearest, unit_rows

if TYPE_CHECKING:
    import duckdb

CENTROIDS = "centroids.npy"

_TRAIN = """
SELECT embedding FROM usable SEMI JOIN (SELECT uid FROM usable ORDER BY {draw}, uid LIMIT {rows})
USING (uid) ORDER BY uid
"""


class Clustering(Protocol):
    """What a config says of its clusters."""

    @property
    def name(self) -> str: ...
    @property
    def embeddings(self) -> str: ...
    @property
    def column(self) -> str: ...
    @property
    def clusters(self) -> int | None: ...
    @property
    def train_rows(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def seed(self) -> int: ...


def table_of(data: Dataset, config: Clustering, unit: str) -> str:
    """The table of scores that has the embeddings. unit: "selector", say; for the message.

    Raises ValueError where the table, or its column of embeddings, is not there.
    """
    from curate.query import connect, quote

    table = f"scores_{config.embeddings}"
    have = [t for t in data.tables() if t.startswith("scores_") and "@" not in t and data.parts(t)]
    columns: list[Any] = []
    if table in have:
        con = connect(data, only=[table])
        columns = [row[0] for row in con.execute(f"DESCRIBE {quote(table)}").fetchall()]
        con.close()
    if config.column not in columns:
        raise ValueError(
            f"{unit} {config.name!r}: {table} has no {config.column}; name in `embeddings` a "
            f"scorer with `embeddings: true` (there are {', '.join(have) or 'no scores'})"
        )
    return table


def fit(
    con: duckdb.DuckDBPyConnection, config: Clustering, pairs: str, most: int, folder: str
) -> None:
    """Write the centroids of the pairs that have embeddings, (clusters, d) float32, into `folder`.

    pairs: SQL that gives the uids of those that count. `clusters` None is round(sqrt(N)), at most
    `most`. Memory is some five float32 copies of `train_rows` embeddings.
    """
    from curate.query import draw_sql, select

    con.execute(
        f"CREATE OR REPLACE TEMP VIEW usable AS SELECT uid, {config.column} AS embedding"
        f" FROM scores_{config.embeddings} SEMI JOIN ({pairs}) USING (uid)"
        f" WHERE caption_id = uid AND {config.column} IS NOT NULL"
    )
    usable = select(con, "SELECT count(*) AS n FROM usable")["n"][0].as_py()
    train = _TRAIN.format(draw=draw_sql(config.seed), rows=config.train_rows)
    embeddings, known = unit_rows(select(con, train)["embedding"])
    clusters = config.clusters or min(most, max(1, round(usable**0.5)))
    rows = embeddings[known & embeddings.any(axis=1)]
    centroids = fit_centroids(rows, clusters, config.iterations, config.seed)
    np.save(Path(folder) / CENTROIDS, centroids, allow_pickle=False)


def load(data: Dataset, unit: str, key: str) -> Matrix:
    """The centroids of an artifact."""
    path = f"{data.path}/_artifacts/{unit}/{key}/{CENTROIDS}"
    found: Matrix = np.load(io.BytesIO(data.fs.cat_file(path)), allow_pickle=False)
    return found


def originals(data: Dataset, table: str, part: int, column: str) -> pa.Table:
    """uid and `column` of a part's original captions."""
    scores = data.read(table, part, ["uid", "caption_id", column])
    return scores.filter(pc.equal(scores["uid"], scores["caption_id"])).select(["uid", column])


def assigned(rows: Matrix, centroids: Matrix) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The cluster of each unit row; 0 where there are no centroids."""
    if not len(centroids) or not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    return nearest(rows, centroids)
