"""Pool counts: how many images share a caption, how many captions share an image, over every
downloaded pair.

Counted by DuckDB out of core and written per part, so that a worker never holds more than its part.
Images are told
apart by sha256 of their bytes, captions by their text without case and outer blanks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.claims import digest
from curate.dataset import Dataset
from curate.query import connect, literal, with_part_sql
from schemas.configs import TextStatsScorer, Workers

NAMES = ("images_per_caption", "captions_per_image")

# of the white space around it, DuckDB's trim leaves tabs and ends of lines
_CAPTION = r"regexp_replace(coalesce(u.caption, ''), '^[\s\p{Z}]+|[\s\p{Z}]+$', '', 'g')"
_COUNTS = """
WITH pool AS (
    SELECT s.uid, s.sha256, lower({caption}) AS caption, s.part
    FROM ({samples}) s JOIN urls u ON u.uid = s.uid
    WHERE s.status = 'success'
), per_caption AS (SELECT caption, count(DISTINCT sha256) AS n FROM pool GROUP BY caption
), per_image AS (SELECT sha256, count(DISTINCT caption) AS n FROM pool GROUP BY sha256)
SELECT pool.uid, per_caption.n AS images_per_caption, per_image.n AS captions_per_image, pool.part
FROM pool JOIN per_caption USING (caption) JOIN per_image USING (sha256)
"""


def fit(data: Dataset, config: TextStatsScorer, workers: Workers | int = 0) -> str:
    """Count over the whole pool at this version; returns the artifact's key."""
    key = digest([config.claimed(), data.fingerprint(["urls", "samples"])])
    data.artifact(config.name, key, lambda folder: _count(data, folder))
    return key


def _count(data: Dataset, folder: str) -> None:
    con = connect(data)
    counts = _COUNTS.format(samples=with_part_sql(data, "samples"), caption=_CAPTION)
    con.execute(
        f"COPY ({counts}) TO {literal(folder)}"
        " (FORMAT parquet, PARTITION_BY (part), OVERWRITE_OR_IGNORE)"
    )
    con.close()
    for found in Path(folder).glob("part=*"):
        rows = pq.ParquetDataset(found, partitioning=None).read().sort_by("uid")
        pq.write_table(rows, Path(folder) / f"{int(found.name[5:]):08d}.parquet")
        for file in found.iterdir():
            file.unlink()
        found.rmdir()


def columns(data: Dataset, config: TextStatsScorer, key: str, part: int) -> dict[str, list[Any]]:
    """The counts of a part's pairs, in the order of its `samples`; None where a pair was not
    downloaded.
    """
    uids = data.read("samples", part, ["uid"])["uid"].to_pylist()
    path = f"{data.path}/_artifacts/{config.name}/{key}/{part:08d}.parquet"
    if not data.fs.exists(path):
        return {f"{config.name}__{name}": [None] * len(uids) for name in NAMES}
    with data.fs.open(path, "rb") as stream:
        rows = pq.read_table(stream).to_pydict()
    found = {uid: i for i, uid in enumerate(rows["uid"])}
    return {
        f"{config.name}__{name}": [rows[name][found[u]] if u in found else None for u in uids]
        for name in NAMES
    }
