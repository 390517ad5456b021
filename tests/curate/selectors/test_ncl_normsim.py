"""NCL and NormSim: equal to plain sums over the references, for any placement."""

from __future__ import annotations

import logging
import uuid

import numpy as np
import pytest

from curate.compress import compress
from curate.dataset import Dataset
from curate.selectors import ncl_normsim
from schemas.configs import ChooseCaption, NclNormSimSelector
from tests.tiny import Row, by_url, tiny_dataset, whole

N, DIMS = 120, 6
RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(N, DIMS)).astype(np.float16)
SCORES = RNG.normal(size=N).astype(np.float32)
GIVEN = RNG.normal(size=(9, DIMS)).astype(np.float32)


def row(i: int, score: float | None, embedding: list[float] | None) -> Row:
    scores = {"ncl": {"ncl_score": score}, "clip": {"image_emb": embedding}}
    return Row(f"http://a/{i}", scores=scores)


ROWS = [row(i, float(SCORES[i]), EMBEDDINGS[i].tolist()) for i in range(N)]


def cut(rows, config: NclNormSimSelector, parts: int = 2, salt: int = 0) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, by_url(parts, salt))
    compress(data, [config], ChooseCaption())
    return data


def chosen(data: Dataset) -> list[str]:
    """The uids of the subset by rank."""
    rows = sorted(whole(data, "subset_ncl_normsim"), key=lambda row: row["rank"])
    return [row["uid"] for row in rows]


def unit(rows) -> np.ndarray:
    return rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def plain(references: np.ndarray | None, norm: str) -> dict[str, float]:
    """NormSim of each pair by the definition; without references, over all pairs but itself."""
    rows = unit(EMBEDDINGS)
    products = rows @ (rows if references is None else unit(references)).T
    if references is None:
        np.fill_diagonal(products, 0 if norm == "2" else -np.inf)
    values = products.max(axis=1) if norm == "inf" else np.sqrt((products**2).sum(axis=1))
    return {row.uid: float(v) for row, v in zip(ROWS, values, strict=True)}


def best(fraction: float) -> list[str]:
    order = sorted(range(N), key=lambda i: (-SCORES[i], ROWS[i].uid))
    return [ROWS[i].uid for i in order[: int(N * fraction)]]


@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "own"])
def test_it_equals_the_definition(tmp_path, norm, given, caplog):
    """The best half by NCL, of these the 20 with the highest NormSim; other pairs have none."""
    np.save(tmp_path / "given.npy", GIVEN)
    path = str(tmp_path / "given.npy") if given else None
    config = NclNormSimSelector(count=20, by_fraction=0.5, norm=norm, references=path)
    with caplog.at_level(logging.INFO):
        data = cut(ROWS, config)
    values = plain(GIVEN if given else None, norm)
    assert chosen(data) == sorted(best(0.5), key=lambda uid: (-values[uid], uid))[:20]
    stored = {r["uid"]: r["normsim"] for r in whole(data, "normsim_ncl_normsim")}
    assert stored == {uid: pytest.approx(values[uid], abs=2e-3) for uid in sorted(best(0.5))}
    assert "60 of 120 pairs are in the top 0.5 by scores_ncl__ncl_score" in caplog.text


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_own_references_are_a_sample_by_hash(norm, monkeypatch):
    """Of a larger pool only so many stand for it, and placement changes nothing."""
    monkeypatch.setattr(ncl_normsim, "OWN_REFERENCES", 15)
    config = NclNormSimSelector(count=30, by_fraction=0.9, norm=norm)
    first, second = cut(ROWS, config, 1), cut(ROWS[::-1], config, 5, salt=2)
    table = "normsim_ncl_normsim"
    assert whole(first, table) == whole(second, table)
    assert chosen(first) == chosen(second)
    values = {r["uid"]: r["normsim"] for r in whole(first, table)}
    full = plain(None, norm)
    assert all(values[uid] <= full[uid] + 2e-3 for uid in values)
    assert any(values[uid] < full[uid] - 0.05 for uid in values)
    other = config.model_copy(update={"seed": 1})
    assert whole(cut(ROWS, other), table) != whole(first, table)


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_a_copy_is_compared_with_its_twin_and_not_with_itself(norm):
    """Two equal images have 1 of each other; one alone at right angles has 0."""
    vectors = [[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]
    rows = [row(i, 1.0, vector) for i, vector in enumerate(vectors)]
    data = cut(rows, NclNormSimSelector(count=2, by_fraction=1.0, norm=norm))
    assert chosen(data) == sorted(r.uid for r in rows[:2])
    stored = {r["uid"]: r["normsim"] for r in whole(data, "normsim_ncl_normsim")}
    assert [stored[r.uid] for r in rows] == pytest.approx([1, 1, 0], abs=1e-6)


def test_what_is_unknown_never_passes():
    """No NCL score, or no embedding: not selected, however many are asked for."""
    rows = [row(0, None, [1.0, 0]), row(1, 0.5, None), row(2, 0.1, [0, 1.0]), row(3, 0.2, [1.0, 1])]
    data = cut(rows, NclNormSimSelector(count=4, by_fraction=1.0))
    assert set(chosen(data)) == {rows[2].uid, rows[3].uid}


def test_a_pool_without_scores_gives_an_empty_subset():
    """Nothing passes, and nothing is measured."""
    rows = [row(0, None, [1.0, 0]), row(1, None, None)]
    for norm in ("2", "inf"):
        assert chosen(cut(rows, NclNormSimSelector(count=1, norm=norm))) == []


def test_changed_references_select_anew(tmp_path):
    """The file's content counts, not its name."""
    path = tmp_path / "r.npy"
    rows = [row(0, 0.1, [1.0, 0]), row(1, 0.2, [0, 1.0])]
    config = NclNormSimSelector(count=1, by_fraction=1.0, references=str(path))
    np.save(path, np.array([[1.0, 0]]))
    data = cut(rows, config)
    assert chosen(data) == [rows[0].uid]
    np.save(path, np.array([[0, 1.0]]))
    compress(data, [config], ChooseCaption())
    assert chosen(data) == [rows[1].uid]


def test_what_does_not_fit_is_named(tmp_path):
    """References of another length, a column and embeddings that are not there."""
    path = tmp_path / "r.npy"
    np.save(path, np.ones((2, 5)))
    config = NclNormSimSelector(count=1, references=str(path))
    with pytest.raises(ValueError, match=r"'ncl_normsim': the references .* have 5 values each"):
        cut(ROWS, config)
    with pytest.raises(ValueError, match="'ncl_normsim': by: 'scores_x__y' is no column"):
        cut(ROWS, NclNormSimSelector(count=1, by="scores_x__y"))
    with pytest.raises(ValueError, match="scores_other has no image_emb"):
        cut(ROWS, NclNormSimSelector(count=1, embeddings="other"))
    with pytest.raises(ValueError, match=r"references: .*no\.npy cannot be read"):
        cut(ROWS, NclNormSimSelector(count=1, references=str(tmp_path / "no.npy")))
