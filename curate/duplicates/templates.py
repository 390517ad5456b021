"""Templates: captions that are one text but for a word or two, many of them; each such flood
becomes a star.

In a group of captions that agree in an LSH band, those of one size s with the same popular n-grams
K (sets.py) are a class. Any two of a class have a Jaccard similarity of at least |K| / (2 s - |K|),
so a class of more than FLOOD others where that is no less than the threshold is a star around its
lowest uid. Bands are gone through in turn; who is in a star is in no other. So m captions of a
template cost m edges. Captions that vary in places of their own have no K: they are compared pair
by pair.

A pair outside is near a star where it is near each of its members: where
|A & K| / (|A| + s - |A & K|) >= threshold, for two stars with the K and s of both.

Stars of earlier searches are read from the table of edges; nobody joins them, and nobody who has
an edge already founds or joins one: what an edge says of a star's members is said when it is
written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.claims import digest
from curate.duplicates.search import buckets_for, slice_sql
from curate.duplicates.sets import FLOOD, Bools, Indices, Sets, classes, similarity
from curate.duplicates.signatures import Signatures
from schemas.configs import TextDuplicates

if TYPE_CHECKING:
    import duckdb

_CROWDED = """
WITH bucket AS (SELECT {band} AS band, text, uid, grams, fresh AND {free} AS free
                FROM ({rows}) WHERE {here}),
     crowded AS (SELECT band FROM bucket WHERE free GROUP BY band HAVING count(*) > {flood})
SELECT band, text, min(uid) AS uid, any_value(grams) AS grams
FROM bucket SEMI JOIN crowded USING (band) ANTI JOIN taken USING (text)
GROUP BY band, text HAVING bool_and(free) ORDER BY band, uid
"""
_EARLIER = """
WITH signed AS ({rows}),
     stars AS (SELECT DISTINCT l.text AS leader, m.text AS text
               FROM {table} e JOIN signed l ON l.uid = e.uid JOIN signed m ON m.uid = e.other_uid
               WHERE e.member AND l.text <> m.text),
     ends AS (SELECT leader, text FROM stars UNION SELECT leader, leader FROM stars)
SELECT leader, text, any_value(grams) AS grams
FROM ends JOIN signed USING (text) GROUP BY leader, text ORDER BY leader, text
"""
_MEMBERS = pa.schema(
    [
        pa.field("text", pa.binary()),
        pa.field("uid", pa.string()),  # of the leader; null: a star of an earlier search
        pa.field("other_uid", pa.string()),
        pa.field("distance", pa.float32()),
    ]
)
_LEADERS = pa.schema(
    [
        pa.field("text", pa.binary()),
        pa.field("core", pa.list_(pa.uint64())),  # K, sorted
        pa.field("size", pa.int64()),  # s
    ]
)


@dataclass(frozen=True)
class Templates:
    """Files of the stars: members.parquet and leaders.parquet of a folder, as the schemas above."""

    members: str
    leaders: str


def templates(signatures: Signatures, config: TextDuplicates) -> Templates:
    """Find the stars of the fresh captions, and gather those of earlier searches."""
    data, unit = signatures.scope.data, f"signatures_{config.name}"
    table = _earlier(signatures, config)
    edges = data.fingerprint([table]) if table else ""
    fresh = sorted(signatures.scope.fresh) if signatures.scope.fresh is not None else None
    key = digest([signatures.files, fresh, edges, FLOOD])
    folder = data.artifact(unit, key, partial(_write, signatures, config, table))
    return Templates(f"{folder}/members.parquet", f"{folder}/leaders.parquet")


def _earlier(signatures: Signatures, config: TextDuplicates) -> str:
    """The table with the edges of earlier searches, "" for none."""
    table, scope = f"duplicates_{config.name}", signatures.scope
    there = scope.fresh is not None and table in scope.data.tables() and scope.data.parts(table)
    return table if there else ""


def _write(signatures: Signatures, config: TextDuplicates, table: str, folder: str) -> None:
    from curate.query import connect

    con = connect(signatures.scope.data, only=[table] if table else [])
    try:
        stars = [_old_stars(con, signatures, table)] if table else []
        free = _free(con, table)
        for band in range(signatures.bands):
            for number in range(of := buckets_for(signatures.scope.data)):
                here = slice_sql(f"band_{band}", number, of)
                _take(con, stars)
                stars += [_new_stars(con, signatures, f"band_{band}", here, free, config.threshold)]
    finally:
        con.close()
    members, leaders = ([star[k] for star in stars] for k in (0, 1))
    for name, tables, schema in (("members", members, _MEMBERS), ("leaders", leaders, _LEADERS)):
        whole = pa.concat_tables([schema.empty_table(), *tables])
        pq.write_table(whole, Path(folder) / f"{name}.parquet")


def _free(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """SQL: whether a row has no edge yet."""
    if not table:
        return "true"
    con.execute(
        f"CREATE TEMP TABLE known AS SELECT uid FROM {table} UNION SELECT other_uid FROM {table}"
    )
    return "uid NOT IN (SELECT uid FROM known)"


def _take(con: duckdb.DuckDBPyConnection, stars: list[tuple[pa.Table, pa.Table]]) -> None:
    """Register the texts that are in a star."""
    found = [_LEADERS.empty_table().select(["text"])]
    found += [table.select(["text"]) for star in stars for table in star]
    con.register("taken", pa.concat_tables(found))


def _new_stars(
    con: duckdb.DuckDBPyConnection,
    signatures: Signatures,
    band: str,
    here: str,
    free: str,
    threshold: float,
) -> tuple[pa.Table, pa.Table]:
    """Members and leaders of the stars of a slice of a band."""
    from curate.query import select

    knobs = {"rows": signatures.rows, "band": band, "here": here, "free": free, "flood": FLOOD}
    rows = select(con, _CROWDED.format(**knobs))
    if not rows.num_rows:
        return _MEMBERS.empty_table(), _LEADERS.empty_table()
    sets = Sets.of(rows["grams"])
    _, group = np.unique(rows["band"].to_numpy(), return_inverse=True)
    leader, popular = _stars(sets, group, threshold)
    leads = np.unique(leader[leader >= 0])
    spans = zip(sets.first[leads], sets.first[leads + 1], strict=True)
    cores = [sets.grams[a:b][popular[a:b]] for a, b in spans]
    member = np.flatnonzero((leader >= 0) & (leader != np.arange(len(leader))))
    distance = 1 - sets.jaccard(leader[member], member)
    members = {
        "text": rows["text"].take(member),
        "uid": rows["uid"].take(leader[member]),
        "other_uid": rows["uid"].take(member),
        "distance": pa.array(distance, pa.float32()),
    }
    leaders = {
        "text": rows["text"].take(leads),
        "core": pa.array(cores, pa.list_(pa.uint64())),
        "size": sets.sizes[leads],
    }
    return pa.table(members, schema=_MEMBERS), pa.table(leaders, schema=_LEADERS)


def _stars(sets: Sets, group: Indices, threshold: float) -> tuple[Indices, Bools]:
    """The leader of each set that is in a star, else -1, and which grams are popular. Sets lie by
    uid in their group.
    """
    found = classes(sets, group)
    _, first, counts = np.unique(found.of, return_index=True, return_counts=True)
    alike = similarity(found.shared, sets.sizes, sets.sizes) >= threshold
    return np.where(alike & (counts[found.of] > FLOOD), first[found.of], -1), found.popular


def _old_stars(
    con: duckdb.DuckDBPyConnection, signatures: Signatures, table: str
) -> tuple[pa.Table, pa.Table]:
    """Members and leaders of the stars of earlier searches: K is what all have in common."""
    from curate.query import select

    rows = select(con, _EARLIER.format(rows=signatures.rows, table=table))
    if not rows.num_rows:
        return _MEMBERS.empty_table(), _LEADERS.empty_table()
    sets = Sets.of(rows["grams"])
    _, first, star = np.unique(
        np.array(rows["leader"].to_pylist(), dtype=object), return_index=True, return_inverse=True
    )
    held, counts = np.unique(np.stack([star[sets.owner], sets.numbers]), axis=1, return_counts=True)
    common = held[:, counts == np.bincount(star)[held[0]]]
    grams = np.unique(sets.grams)
    cores = [np.sort(grams[common[1, common[0] == k]]) for k in range(len(first))]
    leaders = {
        "text": rows["leader"].take(first),
        "core": pa.array(cores, pa.list_(pa.uint64())),
        "size": np.maximum.reduceat(sets.sizes, first),
    }
    others = rows.filter(pc.not_equal(rows["text"], rows["leader"]))
    nulls = {n: pa.nulls(others.num_rows, _MEMBERS.field(n).type) for n in _MEMBERS.names[1:]}
    members = pa.table({"text": others["text"], **nulls}, schema=_MEMBERS)
    return members, pa.table(leaders, schema=_LEADERS)
