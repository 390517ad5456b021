"""Signatures: the n-grams and LSH bands of a pool's captions, a file per part of `samples`.

A file is an artifact named by the rows that it is made of, so that a later search makes those of
its fresh parts alone: `_artifacts/signatures_<name>/<key>/signatures.parquet`, columns as
ngrams.signed gives them, and part. Some 300 bytes per caption of ten words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.claims import digest
from curate.dataset import Dataset
from curate.duplicates.ngrams import bands_of, signed
from curate.duplicates.search import Scope
from curate.engine import Stats, Work, run_parts, workers_for
from schemas.configs import TextDuplicates

TABLES = ("samples", "urls")


@dataclass(frozen=True)
class Signatures:
    """The files of all parts of a scope, and how many bands they have."""

    scope: Scope
    files: tuple[str, ...]
    bands: int

    @property
    def rows(self) -> str:
        """SQL of all rows, with `fresh`."""
        from curate.query import parquet_sql

        read = parquet_sql(self.scope.data, self.files)
        return f"SELECT *, {self.scope.fresh_sql} AS fresh FROM {read}"


def sign(scope: Scope, config: TextDuplicates) -> Signatures:
    """Make the signatures that are missing, on workers where the scope has some."""
    data, unit = scope.data, f"signatures_{config.name}"
    bands, _ = bands_of(config)
    keys = _keys(data, config)
    done = (f"{_folder(data, unit, key)}/_done" for key in keys.values())
    missing = [part for part, file in zip(keys, done, strict=True) if not data.fs.exists(file)]
    workers = workers_for(sum(data.parts("samples")[p].rows for p in missing), scope.workers)
    run_parts(partial(_worker, data, unit, keys, config), missing, workers, label=unit)
    files = [f"{_folder(data, unit, key)}/signatures.parquet" for _, key in sorted(keys.items())]
    return Signatures(scope, tuple(files), bands)


def _folder(data: Dataset, unit: str, key: str) -> str:
    return f"{data.path}/_artifacts/{unit}/{key}"


def _keys(data: Dataset, config: TextDuplicates) -> dict[int, str]:
    """The key of the artifact of each part."""
    tables = [data.parts(table) for table in TABLES]
    shared = sorted(set.intersection(*(set(parts) for parts in tables)))
    return {
        part: digest(
            [config.claimed(), part, [[t[part].content, dict(t[part].inputs)] for t in tables]]
        )
        for part in shared
    }


def _worker(data: Dataset, unit: str, keys: Mapping[int, str], config: TextDuplicates) -> Work:
    def work(part: int) -> Stats:
        data.artifact(unit, keys[part], partial(_write, data, part, config))
        return {"rows": data.parts("samples")[part].rows}

    return work


def _write(data: Dataset, part: int, config: TextDuplicates, folder: str) -> None:
    samples = data.read("samples", part, ["uid", "status"])
    downloaded = samples.filter(pc.equal(samples["status"], "success"))["uid"]
    urls = data.read("urls", part, ["uid", "caption"])
    urls = urls.filter(pc.is_in(urls["uid"], value_set=downloaded)).to_pydict()
    rows = signed(urls["uid"], urls["caption"], config)
    rows = rows.append_column("part", pa.repeat(pa.scalar(part, pa.int32()), rows.num_rows))
    pq.write_table(rows, Path(folder) / "signatures.parquet", compression="zstd")
