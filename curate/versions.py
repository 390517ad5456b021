"""Versions: manifests that say which file is which part of which table, and what it came from.

A manifest is written once, under the next number, by an atomic create: of two writers one learns
that it has lost. Every reader reads through one manifest, so it never sees half of a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fsspec.spec import AbstractFileSystem

from curate import storage

CONTENT = "content"  # in a part's notes
PART_FILE = re.compile(r"^(\d{8})\.g(\d+)\.parquet$")


@dataclass(frozen=True)
class Part:
    """One part as a manifest names it."""

    file: str  # in the table's folder
    generation: int  # how often this part had been written before
    rows: int
    inputs: Mapping[
        str, Any
    ]  # "config", "artifact", and the generation of each table it is made of
    row_group: int | None = None  # of a compacted file, which holds many parts
    notes: Mapping[str, int] = field(default_factory=dict)  # what its maker says of it

    @property
    def content(self) -> int:
        """The generation that others see: an older one, where the maker says that nothing has
        changed since for what is computed from the part.
        """
        return self.notes.get(CONTENT, self.generation)


Tables = dict[str, dict[int, Part]]


def numbers(fs: AbstractFileSystem, root: str) -> list[int]:
    """The published versions, oldest first."""
    names = storage.names(fs, f"{root}/_versions")
    return sorted(int(n[:8]) for n in names if re.fullmatch(r"\d{8}\.json", n))


def load(fs: AbstractFileSystem, root: str, number: int) -> Tables:
    """The tables of a version."""
    raw = json.loads(fs.cat_file(f"{root}/_versions/{number:08d}.json"))
    return {
        table: {int(p): Part(*entry) for p, entry in parts.items()}
        for table, parts in raw["tables"].items()
    }


def _entry(part: Part) -> list[Any]:
    entry = [part.file, part.generation, part.rows, dict(part.inputs)]
    if part.notes:
        return [*entry, part.row_group, dict(part.notes)]
    return entry if part.row_group is None else [*entry, part.row_group]


def publish(fs: AbstractFileSystem, root: str, number: int, tables: Tables) -> None:
    """Write a new version. Raises ValueError where another run has just published that number."""
    body = {
        table: {str(p): _entry(e) for p, e in sorted(parts.items())}
        for table, parts in sorted(tables.items())
    }
    text = json.dumps({"version": number, "tables": body}, indent=1)
    if not storage.create(fs, f"{root}/_versions/{number:08d}.json", text.encode()):
        raise ValueError(f"version {number} of {root} was published by another run; run again")
