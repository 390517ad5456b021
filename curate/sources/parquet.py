"""Parquet: a file as a stream of canonical rows; DataComp's metadata with scores and embeddings.

DataComp (Gadre et al. 2023, arXiv:2304.14108) has `{stem}.parquet` with uid, url, text and two
CLIP similarities, and `{stem}.npz` with the embeddings in the same order. The similarities become
score:<name> columns, and of the embeddings the ViT-L/14 pair (l14_img, l14_txt), else the ViT-B/32
pair, score:image_emb and score:text_emb.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.sources.columns import SCORE, Rows, canonical, resolve
from curate.sources.files import Source
from schemas.configs import IngestConfig
from schemas.tables import SCORES

BATCH_ROWS = 32_768
MATRIX = 2  # dimensions of an array of embeddings
_DATACOMP = ("uid", "url", "text", *SCORES["datacomp"].names)
_PAIRS = (("l14_img", "l14_txt"), ("b32_img", "b32_txt"))


def read_parquet(source: Source, config: IngestConfig) -> Iterator[Rows]:
    """Rows of a parquet file, types kept."""
    with source.open() as stream:
        file = pq.ParquetFile(stream, buffer_size=1 << 20)
        names = file.schema_arrow.names
        if source.format != "datacomp" and is_datacomp(names) and config.format == "auto":
            source = Source(source.fs, source.path, source.size, "datacomp")
        columns = resolve(names, config, source.url)
        embeddings = (
            _embeddings(source, file.metadata.num_rows) if source.format == "datacomp" else []
        )
        done = 0
        for batch in file.iter_batches(
            BATCH_ROWS if not embeddings else BATCH_ROWS // 8, use_threads=False
        ):
            rows = pa.Table.from_batches([batch])
            if source.format == "datacomp":
                table = _with_scores(rows, source, config)
                for name, array in embeddings:
                    table = table.append_column(
                        SCORE + name, _vectors(array[done : done + batch.num_rows])
                    )
            else:
                table = canonical(rows, columns, source.url)
            done += batch.num_rows
            yield Rows(table, done / max(file.metadata.num_rows, 1))


def is_datacomp(names: list[str]) -> bool:
    """Whether these are the columns of DataComp's metadata."""
    return set(_DATACOMP) <= set(names)


def _with_scores(rows: pa.Table, source: Source, config: IngestConfig) -> pa.Table:
    if not is_datacomp(rows.column_names):
        found = ", ".join(rows.column_names)
        raise ValueError(
            f"{source.url}: not DataComp's metadata, which has {', '.join(_DATACOMP)}; "
            f"its columns are: {found}"
        )
    others = rows.drop_columns(SCORES["datacomp"].names)
    table = canonical(others, resolve(others.column_names, config, source.url), source.url)
    for field in SCORES["datacomp"]:
        table = table.append_column(SCORE + field.name, rows[field.name].cast(field.type))
    return table


def _embeddings(source: Source, rows: int) -> list[tuple[str, np.ndarray]]:
    """The two embedding arrays [rows, dim] beside a metadata file; [] where there is no npz."""
    beside = source.sibling(".npz")
    if beside is None:
        return []
    try:
        with beside.open() as stream, np.load(stream, allow_pickle=False) as arrays:
            pair = next((p for p in _PAIRS if set(p) <= set(arrays.files)), None)
            if pair is None:
                raise ValueError(
                    f"it holds {', '.join(arrays.files) or 'nothing'}, "
                    "not l14_img and l14_txt or b32_img and b32_txt"
                )
            image, text = (arrays[name] for name in pair)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{beside.url}: cannot be read as DataComp's embeddings: {error}"
        ) from error
    for name, array in zip(pair, (image, text), strict=True):
        if array.ndim != MATRIX or len(array) != rows:
            raise ValueError(
                f"{beside.url}: {name} is {list(array.shape)} while {source.name} has {rows} rows; "
                "fetch both anew"
            )
    return [("image_emb", image), ("text_emb", text)]


def _vectors(block: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(block, dtype=np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, block.shape[1])
