"""What a selector selects from: the view `pool` (uid, part) of a connection, and how many of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curate.dataset import Dataset
from schemas.configs import SelectorConfig, Workers

if TYPE_CHECKING:
    import duckdb

STAGES = ("decisions_quality", "decisions_dedup")  # what a survivor has survived, where it has run


@dataclass(frozen=True)
class Pool:
    """The pairs to select from. rows: how many there are; count: how many are asked for, at most
    rows.
    """

    data: Dataset
    con: duckdb.DuckDBPyConnection
    rows: int
    count: int
    state: str  # hash of what the pool was computed from
    workers: Workers | int = 0


def tables_of(data: Dataset, survivors: bool) -> list[str]:
    """The tables that say who is in the pool."""
    stages = [t for t in STAGES if survivors and t in data.tables()]
    return ["samples", *stages]


def pool_sql(data: Dataset, survivors: bool) -> str:
    """SELECT of uid and part of the downloaded pairs, or of those that quality and dedup have
    kept.
    """
    from curate.query import with_part_sql

    stages = tables_of(data, survivors)[1:]
    kept = [f"SEMI JOIN (SELECT uid FROM {t} WHERE keep) {t} USING (uid)" for t in stages]
    samples = f"({with_part_sql(data, 'samples')})"
    return f"SELECT uid, part FROM {samples} s {' '.join(kept)} WHERE status = 'success'"


def embeddings_table(pool: Pool, selector: str, scorer: str, column: str) -> str:
    """The table that holds a scorer's embeddings. Raises ValueError where they are not there."""
    table = f"scores_{scorer}"
    have = [t for t in pool.data.tables() if t.startswith("scores_") and "@" not in t]
    described = pool.con.execute(f'DESCRIBE "{table}"').fetchall() if table in have else []
    if column not in [row[0] for row in described]:
        raise ValueError(
            f"selector {selector!r}: {table} has no {column}; name in `embeddings` a "
            f"scorer with `embeddings: true` (there are {', '.join(have) or 'no scores'})"
        )
    return table


def contents(config: SelectorConfig) -> list[str]:
    """sha256 of each file that a selector reads. Raises ValueError where one cannot be read."""
    inside = {"wordnet": "/index.noun"}
    found = []
    for knob in ("metadata", "wordnet", "references"):
        if named := getattr(config, knob, None):
            path = f"{named}{inside.get(knob, '')}"
            try:
                with Path(path).open("rb") as stream:
                    found.append(hashlib.file_digest(stream, "sha256").hexdigest())
            except OSError as error:
                said = f"selector {config.name!r}: {knob}: {path}"
                raise ValueError(f"{said} cannot be read: {error}") from error
    return found


def ranked(rows: str, order: str, count: int, cluster: str = "CAST(NULL AS INTEGER)") -> str:
    """SQL of the first `count` of rows (SQL that gives uid and what `order` and `cluster` name)."""
    return f"""
    SELECT uid, {cluster} AS cluster, row_number() OVER (ORDER BY {order}) - 1 AS rank
    FROM (SELECT * FROM ({rows}) ORDER BY {order} LIMIT {count})"""
