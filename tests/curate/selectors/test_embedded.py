"""What the selectors by embedding have in common: exact sizes, no dependence on placement, and
nothing selected that has no embedding.
"""

from __future__ import annotations

import uuid
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from curate.query import connect
from curate.selectors.embedded import runs, units
from curate.selectors.pool import Pool
from schemas.configs import (
    ChooseCaption,
    D4Selector,
    DensitySelector,
    FacilitySelector,
    KCenterSelector,
    SelectorConfig,
    Workers,
)
from tests.tiny import Row, by_url, tiny_dataset, whole

KINDS: dict[str, type[Any]] = {
    "d4": D4Selector,
    "density": DensitySelector,
    "kcenter": KCenterSelector,
    "facility": FacilitySelector,
}
CUT = {"kcenter": {"sample_rows": 25}, "facility": {"sample_rows": 25}}  # several groups
VECTORS = np.random.default_rng(0).normal(size=(80, 6))


def rows_of(vectors: Any, column: str = "image_emb", **more: Any) -> list[Row]:
    return [
        Row(
            f"http://a/{i}",
            scores={"bootstrap": {column: None if v is None else np.asarray(v).tolist()}},
            **more,
        )
        for i, v in enumerate(vectors)
    ]


def cut(rows: list[Row], config: SelectorConfig, parts: int = 2, salt: int = 0) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, by_url(parts, salt))
    compress(data, [config], ChooseCaption())
    return data


def chosen(rows: list[Row], config: SelectorConfig) -> list[str]:
    """The uids in the order of their rank, which counts from 0."""
    found = whole(cut(rows, config), f"subset_{config.name}")
    assert sorted(row["rank"] for row in found) == list(range(len(found)))
    return [row["uid"] for row in sorted(found, key=lambda row: row["rank"])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 33, 79, 80])
def test_sizes_are_exact(kind, count):
    """As many pairs as asked, each once, in one group or in several."""
    for more in ({}, CUT.get(kind, {})):
        found = chosen(rows_of(VECTORS), KINDS[kind](count=count, **more))
        assert len(found) == len(set(found)) == count


@pytest.mark.parametrize("kind", KINDS)
def test_placement_changes_nothing(kind):
    """The same pairs, clusters and ranks for any split into parts, and any order of the list."""
    config = KINDS[kind](fraction=0.4, **CUT.get(kind, {}))
    first = cut(rows_of(VECTORS), config, 1)
    second = cut(rows_of(VECTORS)[::-1], config, 5, salt=3)
    for table in first.tables():
        if table.startswith(("subset_", "codes_", "decisions_")):
            assert whole(first, table) == whole(second, table)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_without_a_direction_is_never_selected(kind):
    """No embedding, an infinite one, NaN and zeros: asking for all gives all others."""
    odd = [None, [np.inf, *[0.0] * 5], [np.nan, *[1.0] * 5], [0.0] * 6, [-0.0] * 6]
    rows = rows_of([*VECTORS[:12], *odd])
    found = chosen(rows, KINDS[kind](count=17))
    assert set(found) == {row.uid for row in rows[:12]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_that_is_out_stays_out(kind):
    """Only survivors are selected, and what is out changes nothing for them."""
    out = rows_of(VECTORS[40:], keep=False)
    survivors = [
        Row(f"http://b/{i}", scores={"bootstrap": {"image_emb": v.tolist()}}, keep=True)
        for i, v in enumerate(VECTORS[:40])
    ]
    config = KINDS[kind](count=15)
    assert chosen(out + survivors, config) == chosen(survivors, config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_decide(kind):
    """The same pairs with their embeddings exchanged give another set."""
    config = KINDS[kind](count=20)
    moved = np.random.default_rng(1).permutation(VECTORS)
    assert set(chosen(rows_of(VECTORS), config)) != set(chosen(rows_of(moved), config))


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_select_differently(kind):
    """Another seed is another start, clustering or cut."""
    first, second = (
        chosen(rows_of(VECTORS), KINDS[kind](count=20, seed=seed, **CUT.get(kind, {})))
        for seed in (0, 1)
    )
    assert set(first) != set(second)


def test_facility_location_of_one_group_needs_no_seed():
    """Where nothing is cut, nothing is drawn."""
    first, second = (chosen(rows_of(VECTORS), FacilitySelector(count=9, seed=s)) for s in (0, 1))
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_the_column_is_the_configs(kind):
    """text_emb selects by captions as image_emb does by images."""
    by_text = chosen(rows_of(VECTORS, "text_emb"), KINDS[kind](count=20, column="text_emb"))
    assert by_text == chosen(rows_of(VECTORS), KINDS[kind](count=20))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("embeddings", ["clip", "bootstrap"])
def test_missing_embeddings_are_named(kind, embeddings):
    """A scorer that has not run, or has no embeddings, is an error that says which there are."""
    rows = [Row("x", scores={"bootstrap": {"clip_score": 0.3}})]
    message = f"'{kind}': scores_{embeddings} has no image_emb.*there are scores_bootstrap"
    with pytest.raises(ValueError, match=message):
        cut(rows, KINDS[kind](count=1, embeddings=embeddings))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_pool_gives_an_empty_subset(kind):
    """Nothing with an embedding is nothing selected."""
    rows = [
        *rows_of(VECTORS[:1], keep=False),
        Row("y", keep=True),
    ]
    assert chosen(rows, KINDS[kind](count=2)) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 8), st.integers(1, 9))
def test_runs_are_cut_at_changes_and_when_full(keys, most, read):
    """As itertools.groupby does, each group in pieces of `most`, however the rows are read."""
    con = connect(tiny_dataset(f"memory://{uuid.uuid4().hex}", [Row("x")]))
    con.register("listed", pa.table({"key": pa.array(keys, pa.int64()), "row": range(len(keys))}))
    pool = Pool(Dataset("memory://none"), con, 0, 0, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.selectors.embedded.READ", read)
        found = list(runs(pool, "SELECT * FROM listed ORDER BY row", "key", most))
    whole_runs = [[at for at, _ in run] for _, run in groupby(enumerate(keys), lambda k: k[1])]
    expected = [run[i : i + most] for run in whole_runs for i in range(0, len(run), most)]
    assert [piece["row"].to_pylist() for piece in found] == expected


def test_equal_directions_are_equal_bytes():
    """Twice a vector, and zeros of either sign, make the same unit row."""
    first, second = units(np.array([[3.0, 0.0, 4.0], [6.0, -0.0, 8.0]], np.float16))
    assert first.tobytes() == second.tobytes()
    assert first == pytest.approx([0.6, 0, 0.8])


@pytest.mark.slow
def test_ray_workers_select_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two Ray actors assign the same clusters as this process."""
    monkeypatch.setattr("curate.engine.WORTH_WORKERS", 1)
    configs = [D4Selector(count=15), DensitySelector(count=15)]
    here = tiny_dataset(tmp_path / "a", rows_of(VECTORS))
    there = tiny_dataset(tmp_path / "b", rows_of(VECTORS), 5)
    compress(here, configs, ChooseCaption())
    compress(there, configs, ChooseCaption(), Workers(count=2))
    for name in ("subset_d4", "subset_density", "codes_d4_prototypes", "codes_density"):
        assert whole(here, name) == whole(there, name)
