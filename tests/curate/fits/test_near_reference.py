"""near_reference: the pool's clusters that hold references, and the nearest reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save_file

import models
from curate.dataset import Dataset
from curate.derived import score_derived
from curate.filter import filter_pairs
from models.kmeans import fit_centroids
from schemas.configs import CurationConfig, NearReferenceScorer, Rule
from schemas.tables import scores
from tests.embedded import DIM, Embedded, batch_of, dataset, embedded, unit
from tests.tiny import whole

ERRORS = {7: "undecodable image"}
TABLE = "scores_near_reference"
CLUSTERS = 18  # three for a bunch, so that none holds two of them


def bunched(n: int = 120, bunches: int = 6, seed: int = 0) -> tuple[Embedded, np.ndarray]:
    """A pool whose images lie in bunches, and the bunch of each."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((bunches, DIM))
    of = np.arange(n) % bunches
    pool = embedded(n)
    images = unit(centres[of] + 0.2 * rng.standard_normal((n, DIM)))
    return Embedded(**(vars(pool) | {"images": images})), of


POOL, OF = bunched()


def near(bunches: tuple[int, ...], seed: int = 5) -> np.ndarray:
    """References: float32 rows of any length beside all images of some bunches."""
    rng = np.random.default_rng(seed)
    rows = POOL.images[np.isin(OF, bunches)].astype(np.float64)
    rows = (rows + 0.01 * rng.standard_normal(rows.shape)) * rng.uniform(0.5, 9, (len(rows), 1))
    return rows.astype(np.float32)


def config_of(path: Path, references: np.ndarray, **knobs: object) -> NearReferenceScorer:
    np.save(path / "references.npy", references)
    knobs = {"references": str(path / "references.npy"), "clusters": CLUSTERS} | knobs
    return NearReferenceScorer.model_validate(knobs)


def columns(data: Dataset) -> dict[str, tuple]:
    return {r["uid"]: (r["near_reference"], r["reference_similarity"]) for r in whole(data, TABLE)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Dataset, NearReferenceScorer]:
    path = tmp_path_factory.mktemp("near")
    data = dataset(path / "data", POOL, errors=ERRORS)
    config = config_of(path, near((1, 4)))
    score_derived(data, [config])
    return data, config


def test_the_images_of_the_references_clusters_are_near(made):
    """Of planted bunches those that references lie in have some in every cluster, the others none;
    the pair without an embedding is unknown."""
    found = columns(made[0])
    for row, uid in enumerate(POOL.uids):
        if row not in ERRORS:
            assert (found[uid][0] > 0) == (OF[row] in (1, 4))
    errors = {r["uid"]: r["error"] for r in whole(made[0], TABLE) if r["error"]}
    assert errors == {POOL.uids[7]: "not scored by clip: undecodable image"}
    assert found[POOL.uids[7]] == (None, None)
    for part in made[0].parts(TABLE):
        assert made[0].read(TABLE, part).schema.remove_metadata() == scores("near_reference")


def test_similarities_and_counts_are_those_of_numpy(made):
    """The cosine of the nearest reference, and the references whose nearest centroid is the
    image's, written out."""
    data, config = made
    rows = np.array([i for i in range(len(POOL)) if i not in ERRORS])
    rows = rows[np.argsort([POOL.uids[i] for i in rows])]
    images = POOL.images[rows].astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    references = np.load(config.references).astype(np.float64)
    references /= np.linalg.norm(references, axis=1, keepdims=True)
    centroids = fit_centroids(images.astype(np.float32), CLUSTERS, config.iterations, config.seed)
    held = np.bincount((references @ centroids.T).argmax(axis=1), minlength=CLUSTERS)
    found = [columns(data)[POOL.uids[i]] for i in rows]
    assert [f[0] for f in found] == held[(images @ centroids.T).argmax(axis=1)].tolist()
    assert [f[1] for f in found] == pytest.approx((images @ references.T).max(axis=1), abs=1e-5)


@pytest.mark.parametrize("parts", [1, 5])
def test_neither_parts_nor_batches_nor_order_change_a_score(made, tmp_path, monkeypatch, parts):
    """Another split and five pairs at once give the same columns."""
    monkeypatch.setattr("curate.derived.stored_batches.__defaults__", ("", 5))
    other = dataset(tmp_path, POOL, parts, ERRORS)
    score_derived(other, [made[1]])
    assert columns(other) == columns(made[0])


def test_other_images_change_the_scores_and_other_captions_do_not(made, tmp_path):
    """The same pairs with their images turned by one are near where those images are."""
    data, config = made
    turned = Embedded(**(vars(POOL) | {"images": np.roll(POOL.images, 1, axis=0)}))
    other = dataset(tmp_path / "images", turned)
    score_derived(other, [config])
    found = columns(other)
    assert [found[u][0] > 0 for u in POOL.uids] == np.isin(np.roll(OF, 1), (1, 4)).tolist()
    texts = Embedded(**(vars(POOL) | {"texts": np.roll(POOL.texts, 1, axis=0)}))
    same = dataset(tmp_path / "texts", texts, errors=ERRORS)
    score_derived(same, [config])
    assert columns(same) == columns(data)


def test_a_rule_keeps_what_is_near(made):
    """DataComp's image-based filter: at least one reference in the cluster."""
    rule = Rule(name="not_near", value=f"{TABLE}__near_reference", drop_below=1)
    filter_pairs(made[0], [rule])
    kept = {r["uid"] for r in whole(made[0], "decisions_quality") if r["keep"]}
    assert kept == {POOL.uids[i] for i in range(len(POOL)) if OF[i] in (1, 4) and i not in ERRORS}


def test_the_clusters_depend_on_the_seed_and_the_pool_alone(tmp_path):
    """Two fits give the same bytes; another seed or other references another artifact."""
    keys = []
    for name, knobs in (("a", {}), ("b", {}), ("c", {"seed": 1})):
        data = dataset(tmp_path / name, POOL)
        config = config_of(tmp_path, near((1, 4)), train_rows=60, **knobs)
        score_derived(data, [config])
        key = data.artifact_in_use(TABLE)
        folder = Path(data.path, "_artifacts/near_reference", key)
        keys.append({f.name: f.read_bytes() for f in folder.glob("*.npy")})
    assert keys[0] == keys[1]
    assert keys[0]["centroids.npy"] != keys[2]["centroids.npy"]
    before = data.artifact_in_use(TABLE)
    score_derived(data, [config_of(tmp_path, near((2,)), train_rows=60, seed=1)])
    assert data.artifact_in_use(TABLE) != before
    assert {uid for uid, (n, _) in columns(data).items() if n} == {
        uid for uid, bunch in zip(POOL.uids, OF, strict=True) if bunch == 2
    }


def test_without_similarities_no_references_are_kept(tmp_path):
    """The column is null for all, the clusters are the same."""
    data = dataset(tmp_path / "data", POOL)
    score_derived(data, [config_of(tmp_path, near((1,)), similarity=False)])
    found = columns(data)
    assert {similarity for _, similarity in found.values()} == {None}
    assert [found[uid][0] > 0 for uid in POOL.uids] == (OF == 1).tolist()
    folder = Path(data.path, "_artifacts/near_reference", data.artifact_in_use(TABLE))
    assert not (folder / "references.npy").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_references_may_be_safetensors(made, tmp_path, dtype):
    """One tensor of any float type is read as an array is."""
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "references.safetensors"
    rows = torch.from_numpy(np.load(made[1].references)).to(getattr(torch, dtype))
    save_torch({"image_emb": rows}, path)
    data = dataset(tmp_path / "data", POOL, errors=ERRORS)
    score_derived(data, [made[1].model_copy(update={"references": str(path)})])
    mine, theirs = columns(data), columns(made[0])
    assert {u: n for u, (n, _) in mine.items()} == {u: n for u, (n, _) in theirs.items()}


def _bad_files(path: Path) -> dict[str, tuple[Path, str]]:
    rows = np.ones((3, DIM), np.float32)
    arrays = {
        "narrow": (np.ones((3, 5), np.float32), f"have 5 values each.*{DIM}: use one model"),
        "flat": (np.ones(5, np.float32), r"are float32 \[5\], must be floats"),
        "whole": (np.ones((3, DIM), np.int64), r"are int64 .*must be floats"),
        "zero": (rows * np.array([[1], [0], [1]], np.float32), "1 of 3 rows are no direction"),
        "nan": (rows * np.array([[1], [np.nan], [1]], np.float32), "1 of 3 rows are no"),
    }
    for name, (array, _) in arrays.items():
        np.save(path / f"{name}.npy", array)
    (path / "text.npy").write_text("no array")
    save_file({"a": rows, "b": rows}, path / "two.safetensors")
    found = {name: (path / f"{name}.npy", said) for name, (_, said) in arrays.items()}
    found["text"] = (path / "text.npy", "cannot be read")
    found["gone"] = (path / "gone.npy", "cannot be read: .*No such file")
    found["two"] = (path / "two.safetensors", "it holds a, b, not one tensor")
    return found


def test_a_file_that_is_no_array_of_embeddings_is_named(tmp_path):
    """Each error has the scorer, the file, what it holds and what it should."""
    data = dataset(tmp_path / "data", POOL)
    for path, said in _bad_files(tmp_path).values():
        config = NearReferenceScorer(references=str(path), clusters=6)
        with pytest.raises(ValueError, match=said) as found:
            score_derived(data, [config])
        assert str(path) in str(found.value)
        assert "'near_reference'" in str(found.value)


def test_bad_embeddings_cost_their_pairs(made):
    """Null, NaN and zero embeddings are errors; the others are scored."""
    data, config = made
    folder = Path(data.path, "_artifacts/near_reference", data.artifact_in_use(TABLE))
    scorer = models.scorer(config, folder)
    images = [*POOL.images[:3], None, np.full(DIM, np.nan, np.float16), np.zeros(DIM, np.float16)]
    found = scorer(batch_of(POOL.take(range(6)), image_emb=images))
    reason = "the embedding of clip is no direction"
    assert found["error"] == [None] * 3 + ["not scored by clip: no embedding"] + [reason] * 2
    assert [n is None for n in found["near_reference"]] == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match="is fitted on a pool first"):
        models.scorer(config)


def test_embeddings_that_came_with_the_list_are_read(made, tmp_path):
    """`of: datacomp` needs no model: scores_datacomp has the images' embeddings."""
    data = dataset(tmp_path, POOL, errors=ERRORS, name="datacomp")
    score_derived(data, [made[1].model_copy(update={"of": "datacomp"})])
    assert columns(data) == columns(made[0])


def test_embeddings_of_a_list_need_a_list_that_can_bring_them():
    """`of: datacomp` is known where a list may be DataComp's, and nowhere else."""
    scorer = {"kind": "near_reference", "of": "datacomp", "references": "r.npy"}
    recipe = {"root": "x", "scorers": [scorer]}
    brought = {"ingest": [{"path": "m", "format": "datacomp"}]}
    CurationConfig.model_validate(recipe | brought)
    other = {"ingest": [{"path": "m", "format": "csv"}]}
    with pytest.raises(ValidationError, match="'datacomp' is not among the scorers with embed"):
        CurationConfig.model_validate(recipe | other)
