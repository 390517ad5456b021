"""Near-equal captions: the same text once normalised, or word n-grams with a Jaccard similarity of
at least the threshold, found by MinHash LSH (Broder 1997; Leskovec, Rajaraman, Ullman, ch. 3).

1. Signatures of all downloaded captions, by part (ngrams.py, signatures.py); an empty caption
   takes no part.
2. Equal normalised captions are stars, distance 0. From here on there is one row per text.
3. Floods of one template are stars (templates.py); their members are compared no more.
4. Texts that agree in a band are compared exactly (sets.py). An edge is in the bucket of the first
   band in which its two texts agree; its distance is 1 - J.

No edge is wrong. A pair of similarity J is found with probability 1 - (1 - J^r)^b (a test measures
it): at 128 hashes and threshold 0.8 b = 17 and r = 7, 0.98 at 0.8 and 0.9998 at 0.9; at another
num_perm or threshold at least 0.9 at the threshold. Two stars, or a star and a pair, whose members
are not all near each other have no edge.

Measured on 100 000 captions of 8 to 15 words (15 % near copies, a tenth of them of two templates):
6 s of CPU for the signatures, once per part, 3 s for the edges; both grow with the rows.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.duplicates.search import Scope, Search, buckets_for, slice_sql, stars
from curate.duplicates.sets import Bools, Floats, Indices, Sets, similar, similarity
from curate.duplicates.signatures import TABLES, Signatures, sign
from curate.duplicates.templates import Templates, templates
from schemas.configs import TextDuplicates

_FLOODS = """
SELECT uid, other_uid, distance, true AS member FROM {members}
WHERE uid IS NOT NULL AND {here} ORDER BY 1, 2
"""
_TEXTS = """
WITH bucket AS (SELECT text, uid, grams, fresh, {columns} FROM ({rows})
                ANTI JOIN {members} USING (text) WHERE {here}),
     shared AS (SELECT {band} FROM bucket GROUP BY {band}
                HAVING min(text) <> max(text) AND bool_or(fresh)),
     texts AS (SELECT text, coalesce(min(uid) FILTER (NOT fresh), min(uid)) AS uid,
                      bool_and(fresh) AS fresh, any_value(grams) AS grams, {columns}
               FROM bucket SEMI JOIN shared USING ({band}) GROUP BY text, {columns})
SELECT texts.*, core, size FROM texts LEFT JOIN {leaders} USING (text)
ORDER BY {band}, NOT fresh, uid
"""


def tables(config: TextDuplicates) -> tuple[str, ...]:
    """The tables that it reads."""
    return TABLES


def find(scope: Scope, config: TextDuplicates) -> Search:
    """Search for downloaded pairs whose captions are equal, or nearly so."""
    slices = buckets_for(scope.data)
    signatures = sign(scope, config)
    floods = templates(signatures, config)
    work = partial(_bucket, signatures, floods, config.threshold, slices)
    return Search("minhash", slices * (2 + signatures.bands), work)


def _bucket(
    signatures: Signatures, floods: Templates, threshold: float, slices: int, number: int
) -> pa.Table:
    """Buckets: the slices of equal texts, those of the floods, then the slices of each band."""
    from curate.query import connect, parquet_sql, select

    data = signatures.scope.data
    kind, part = divmod(number, slices)
    if kind == 0:
        rows = f"SELECT uid, text AS key, fresh FROM ({signatures.rows})"
        return stars(data, rows, part, slices)
    files = {
        "members": parquet_sql(data, [floods.members]),
        "leaders": parquet_sql(data, [floods.leaders]),
    }
    con = connect(data, only=())
    try:
        if kind == 1:
            return select(con, _FLOODS.format(here=slice_sql("uid", part, slices), **files))
        names = [f"band_{band}" for band in range(kind - 1)]
        here, columns = slice_sql(names[-1], part, slices), ", ".join(names)
        knobs = {"rows": signatures.rows, "columns": columns, "band": names[-1], "here": here}
        texts = select(con, _TEXTS.format(**knobs, **files))
    finally:
        con.close()
    return _edges(texts, names, threshold)


def _edges(texts: pa.Table, bands: list[str], threshold: float) -> pa.Table:
    """The edges of the texts that agree in the last of these bands and in none before."""
    _, group = np.unique(texts[bands[-1]].to_numpy(), return_inverse=True)
    fresh = texts["fresh"].to_numpy()
    left, right, near = similar(Sets.of(texts["grams"]), group, fresh, threshold)
    first = np.ones(len(left), dtype=bool)
    for name in bands[:-1]:
        band = texts[name].to_numpy()
        first &= band[left] != band[right]
    left, right, near = left[first], right[first], near[first]
    sound = _all_near(texts, left, right, threshold)
    return _table(texts["uid"], left[sound], right[sound], near[sound])


def _all_near(texts: pa.Table, left: Indices, right: Indices, threshold: float) -> Bools:
    """Whether all members of the star of left[k] are near all of that of right[k]."""
    sound = np.ones(len(left), dtype=bool)
    leads = texts["size"].is_valid().to_numpy()
    at = np.flatnonzero(leads[left] | leads[right])
    if not len(at):
        return sound
    common = pc.if_else(texts["size"].is_valid(), texts["core"], texts["grams"])
    size = pc.coalesce(texts["size"], pc.cast(pc.list_value_length(texts["grams"]), pa.int64()))
    cores, sizes = Sets.of(common), size.to_numpy()
    left, right = left[at], right[at]
    shared = cores.shared(left, right)
    sound[at] = similarity(shared, sizes[left], sizes[right]) >= threshold
    return sound


def _table(uids: pa.ChunkedArray, ones: Indices, others: Indices, near: Floats) -> pa.Table:
    """The edges between these rows: the lower uid first, sorted."""
    rank = pc.rank(uids).to_numpy().astype(np.int64)
    swap = rank[ones] > rank[others]
    low, high = np.where(swap, others, ones), np.where(swap, ones, others)
    order = np.lexsort((rank[high], rank[low]))
    ends = {"uid": uids.take(low[order]), "other_uid": uids.take(high[order])}
    distance = (1 - near[order]).astype(np.float32)
    member = pa.repeat(False, len(order))
    return pa.table({**ends, "distance": distance, "member": member})
