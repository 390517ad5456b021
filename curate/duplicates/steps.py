"""Steps: a finder searches what is new, and its edges join those of earlier steps.

What step n has covered stands in the artifact that its edges were written with:

    searched.json   {"parts": {part: state of its rows}, "first": number of its first part of edges,
                     "buckets": how many it wrote}

A part of the pool is fresh where no step has covered it. Where a covered one was written anew, by a
retry or by other scores, the search begins anew: its edges then are those of a first run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.claims import digest
from curate.dataset import Dataset
from curate.duplicates.search import Scope
from schemas.base import Config, Workers

NOTE = "searched.json"


@dataclass(frozen=True)
class Step:
    """One search. scope: None where nothing is fresh."""

    number: int
    scope: Scope | None
    first: int  # number of its first part of edges
    states: dict[str, str]  # of every part of the pool

    def key(self, config: Config) -> str:
        """Of the artifact that its edges name; later steps sort after earlier ones."""
        return f"{self.number:06d}-{digest([config.claimed(), self.first, self.states])}"


def next_step(data: Dataset, table: str, of: Sequence[str], workers: Workers | int = 0) -> Step:
    """What is to be searched for `table`, which is found from the tables `of`, the parts of which
    lie side by side.
    """
    states = _states(data, of)
    if not (key := data.artifact_in_use(table)):
        return Step(0, Scope(data, workers=workers), 0, states)
    done = json.loads(data.fs.cat_file(f"{data.path}/_artifacts/{table}/{key}/{NOTE}"))
    covered: dict[str, str] = done["parts"]
    if any(states.get(part) != state for part, state in covered.items()):
        return Step(0, Scope(data, workers=workers), 0, states)
    fresh = states.keys() - covered.keys()
    if not fresh:
        return Step(int(key[:6]), None, done["first"], states)
    scope = Scope(data, frozenset(map(int, fresh)), workers)
    return Step(int(key[:6]) + 1, scope, done["first"] + done["buckets"], states)


def note(data: Dataset, table: str, step: Step, config: Config, buckets: int) -> str:
    """Remember what a step covers before it writes its edges; returns the key of the artifact."""
    body = json.dumps({"parts": step.states, "first": step.first, "buckets": buckets})
    key = step.key(config)
    data.artifact(table, key, lambda folder: _write(Path(folder) / NOTE, body))
    return key


def _write(path: Path, body: str) -> None:
    path.write_text(body)


def _states(data: Dataset, of: Sequence[str]) -> dict[str, str]:
    tables: list[Any] = [data.parts(t) for t in of if t in data.tables()]
    shared = sorted(set.intersection(*(set(parts) for parts in tables)))
    return {
        str(part): digest([[p[part].content, dict(p[part].inputs)] for p in tables])
        for part in shared
    }
