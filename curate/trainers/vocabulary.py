"""Vocabularies for small text towers, learned from shards or from a dataset's whole pool."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from curate.captions import generated_tables
from curate.dataset import Dataset
from curate.query import connect, quote, select
from curate.trainers.pool import read_pair
from curate.wds import Folder
from models.vocabulary import Vocabulary

SAMPLE = 200_000  # captions that are looked at


def learn_from_shards(shards: str, size: int) -> Vocabulary:
    """The words of the captions of a folder of shards."""
    pairs = islice((p for s in Folder(shards).samples() if (p := read_pair(s))), SAMPLE)
    return Vocabulary.learn((text for pair in pairs for text in pair.texts), size)


def learn_from_pool(data: Dataset, size: int) -> Vocabulary:
    """The words of the pool's captions, original and generated: the same for every subset of it."""
    return Vocabulary.learn(_captions(data), size)


def _captions(data: Dataset) -> Iterator[str]:
    tables = ["urls", *generated_tables(data)]  # what copies say is in urls already
    con = connect(data)
    try:
        for table in tables:  # a uid is a hash: the first ones are a sample
            known = f"SELECT * FROM {quote(table)} WHERE caption IS NOT NULL"
            rows = select(
                con, f"SELECT caption FROM ({known}) ORDER BY uid, caption LIMIT {SAMPLE}"
            )
            yield from rows["caption"].to_pylist()
    finally:
        con.close()
