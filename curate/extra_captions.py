"""Extra captions: what removed copies of an image say of it, kept beside the pair that stays.

1. The removed pairs' captions are joined to the pairs that stay, out of core, into an artifact
   sorted by the part of those.
2. Each part of captions_copies is written from its slice: a row per caption that is new, the
   removed pair's uid as its caption_id.

They are captions that were found, not made: no captioner can be named `copies`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from schemas.configs import Workers
from schemas.tables import CAPTIONS, COPIES

__all__ = ["COPIES", "extra_captions"]

MOST = 16  # captions that a pair is lent
_LENT = """
WITH lent AS (SELECT k.part, k.uid, k.caption AS own, r.uid AS caption_id, u.caption, r.finder
              FROM removed r JOIN urls u ON u.uid = r.uid JOIN ({urls}) k ON k.uid = r.duplicate_of
              WHERE u.caption IS NOT NULL)
SELECT * FROM lent
QUALIFY row_number() OVER (PARTITION BY uid, caption ORDER BY caption_id) = 1
ORDER BY part, uid, caption_id
"""


def extra_captions(
    data: Dataset, removed: pa.Table, claim: Claim, workers: Workers | int = 0
) -> None:
    """Write the parts of captions_copies that the claim (of `urls`) misses; the caller publishes.

    removed: uid, duplicate_of, finder (strings): who went for whom, by which finder; what the
    claim's config and artifact say of the pool decides it. A caption is lent where it differs from
    the kept pair's and from the others' in more than case and white space; at most MOST per pair,
    the lowest uid first.
    """
    if missing := data.missing(claim):
        key = digest([claim.config, claim.artifact])
        folder = data.artifact(COPIES, key, partial(_join, data, removed))

        def build() -> Work:
            return partial(_write, data, claim, f"{folder}/lent.parquet")

        run_parts(build, missing, workers, label="extra captions")


def _join(data: Dataset, removed: pa.Table, folder: str) -> None:
    """part, uid, own (its caption), caption_id, caption, finder of each different caption."""
    from curate.query import connect, literal, run, with_part_sql

    con = connect(data, only=["urls"])
    try:
        con.register("removed", removed)
        body = _LENT.format(urls=with_part_sql(data, "urls"))
        run(con, f"COPY ({body}) TO {literal(f'{folder}/lent.parquet')} (FORMAT parquet)")
    finally:
        con.close()


def _write(data: Dataset, claim: Claim, lent: str, part: int) -> Stats:
    with data.fs.open(lent, "rb") as stream:
        found = pq.read_table(stream, filters=[("part", "=", part)]).to_pylist()
    rows = [
        dict.fromkeys(CAPTIONS.names)
        | {"uid": row["uid"], "caption_id": row["caption_id"], "caption": row["caption"]}
        | {"origin": "copy", "generator": row["finder"]}
        for _, own in groupby(found, key=lambda row: row["uid"])
        for row in _new(own)
    ]
    data.write(claim, part, pa.Table.from_pylist(rows, schema=CAPTIONS))
    return {"rows": len(rows)}


def _new(lent: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the captions that one pair is lent those that say something else, MOST of them."""
    kept: list[dict[str, Any]] = []
    said = {""}
    for row in lent:
        said.add(_plain(row["own"]))
        if (text := _plain(row["caption"])) not in said and len(kept) < MOST:
            said.add(text)
            kept.append(row)
    return kept


def _plain(caption: str | None) -> str:
    return " ".join((caption or "").casefold().split())
