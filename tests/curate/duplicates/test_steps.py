"""Steps: what a finder has searched, and what is fresh."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curate.dataset import Dataset
from curate.duplicates.steps import next_step, note
from schemas.configs import ExactDuplicates
from schemas.tables import DUPLICATES
from tests.tiny import Made, Row, by_url, tiny_dataset

CONFIG, TABLE = ExactDuplicates(), "duplicates_exact"


def search(data: Dataset) -> tuple[int, frozenset[int] | None, int] | None:
    """Take the next step, with two parts of no edges: its number, what was fresh, its first part;
    None where nothing was.
    """
    step = next_step(data, TABLE, ("samples",))
    if step.scope is None:
        return None
    key = note(data, TABLE, step, CONFIG, 2)
    claim = data.claim(TABLE, CONFIG, artifact=key, append=step.number > 0)
    for part in (step.first, step.first + 1):
        data.write(claim, part, pa.Table.from_pylist([], DUPLICATES))
    data.publish(claim)
    return step.number, step.scope.fresh, step.first


def made(name: str) -> Made:
    """What tests/tiny.py claims a table with."""
    return Made(name=name)


def test_each_step_takes_what_the_steps_before_have_not_seen(tmp_path: Path):
    """The first takes all, a second one nothing, one after new parts these, with parts of its own
    behind the others.
    """
    data = tiny_dataset(tmp_path, [Row(f"http://a/{i}") for i in range(8)], by_url(2))
    assert search(data) == (0, None, 0)
    assert search(data) is None
    more = tiny_dataset(tmp_path / "more", [Row("http://b/1")], lambda uid: 0)
    rows = {name: more.read(name, 0) for name in ("urls", "samples")}
    for name, of in (("urls", ()), ("samples", ("urls",))):
        claim = data.claim(name, made(name), of=of, append=not of, revisable=True)
        data.write(claim, 7, rows[name])
        data.publish(claim)
    assert search(data) == (1, frozenset({7}), 2)
    assert sorted(data.parts(TABLE)) == [0, 1, 2, 3]
    assert search(data) is None


def test_a_part_that_was_written_anew_begins_the_search_anew(tmp_path: Path):
    """A retry writes the next generation of a part: all are searched, and earlier edges go."""
    data = tiny_dataset(tmp_path, [Row(f"http://a/{i}") for i in range(8)], by_url(2))
    search(data)
    claim = data.claim("samples", made("samples"), of=("urls",), revisable=True)
    data.write(claim, 1, data.read("samples", 1), again=True)
    data.publish(claim)
    assert search(data) == (0, None, 0)
    assert sorted(data.parts(TABLE)) == [0, 1]
    assert search(data) is None
