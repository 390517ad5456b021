"""Whether two downloads of one list say the same, row by row."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.dataset import Dataset

COMPARED = (
    *("status", "error_message", "caption", "width", "height"),
    *("original_width", "original_height", "sha256", "exif"),
)
SIZES = frozenset({"width", "height", "original_width", "original_height"})
SUCCESS = "success"
EXAMPLES = 10
Rows = dict[str, dict[str, Any]]  # by URL


def our_rows(root: Path) -> Rows:
    """Of a dataset: urls with their samples."""
    data, rows = Dataset(str(root)), {}
    for part in data.parts("samples"):
        samples = {row["uid"]: row for row in data.read("samples", part).to_pylist()}
        for row in data.read("urls", part).to_pylist():
            rows[row["url"]] = samples[row["uid"]] | {"caption": row["caption"]}
    return rows


def their_rows(folder: Path) -> Rows:
    """Of img2dataset's output folder."""
    shards = sorted(folder.glob("*.parquet"))
    return {row["url"]: row for shard in shards for row in pq.read_table(shard).to_pylist()}


def agreement(ours: Rows, theirs: Rows) -> dict[str, Any]:
    """Counts, differing columns of rows where both succeed, and what happened to the others.

    Sizes of images that EXIF turns on their side are not compared: img2dataset does not turn.
    """
    both = [u for u in ours.keys() & theirs.keys() if _good(ours[u]) and _good(theirs[u])]
    turned = {url for url in both if _turned(ours[url]["exif"])}
    examples, differing, by_column = [], 0, Counter[str]()
    for url in sorted(both):
        columns = [c for c in COMPARED if not (url in turned and c in SIZES)]
        names = [c for c in columns if _plain(c, ours[url]) != _plain(c, theirs[url])]
        differing += bool(names)
        by_column.update(names)
        if names and len(examples) < EXAMPLES:
            values = [f"{c}: {ours[url][c]!r:.80} / {theirs[url][c]!r:.80}" for c in names]
            examples.append(f"{url} {'; '.join(values)}")
    failed = [u for u in ours.keys() | theirs.keys() if u not in set(both)]
    return {
        "both": len(both),
        "turned": len(turned),
        "differing": differing,
        "differing_columns": dict(by_column),
        "only_ours": sum(_good(ours.get(u)) for u in failed),
        "only_theirs": sum(_good(theirs.get(u)) for u in failed),
        "neither": sum(not _good(ours.get(u)) and not _good(theirs.get(u)) for u in failed),
        "missing_ours": len(theirs.keys() - ours.keys()),
        "missing_theirs": len(ours.keys() - theirs.keys()),
        "failures": Counter(
            f"ours: {_said(ours.get(u))} | img2dataset: {_said(theirs.get(u))}" for u in failed
        ).most_common(30),
        "examples": examples,
    }


def _good(row: dict[str, Any] | None) -> bool:
    return row is not None and row["status"] == SUCCESS


def _said(row: dict[str, Any] | None) -> str:
    """Status and reason, the numbers in it aside, so that equal ones are counted together."""
    if row is None:
        return "no row"
    reason = re.sub(r"\d{4,}|\(\d+, \d+.*?\)", "N", row["error_message"] or "")
    return f"{row['status']} {reason[:90]}".strip()


def _plain(column: str, row: dict[str, Any]) -> Any:
    value = row[column]
    return json.loads(value) if column == "exif" and value is not None else value


def _turned(exif: str | None) -> bool:
    tag = str(json.loads(exif or "{}").get("Image Orientation", ""))
    return "90" in tag or "270" in tag
