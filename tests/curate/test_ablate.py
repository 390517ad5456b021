"""Ablate: equal terms for all subsets, nothing done twice, honest intervals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ablate import ablate, paired_difference, summary, t_975
from curate.dataset import Dataset
from curate.export import export
from schemas.configs import AblateConfig, ExportConfig, Retrieval
from schemas.tables import METRICS
from tests.pools import TRAINER, add_subset, pool, retrieval_set, squares

CONFIG = AblateConfig(subsets=("all", "few"), seeds=(0, 1))
METRIC = "retrieval/recall@1"


@pytest.fixture
def place(tmp_path):
    """A pool, two exported subsets of it and a held-out set."""
    made = squares(24)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made)
    add_subset(data, "few", made[:9])
    shards = {name: export(data, ExportConfig(subset=name)) for name in ("all", "few")}
    held_out = retrieval_set(tmp_path / "held_out.parquet", squares(8, start=1000))
    return data, shards, [Retrieval(path=held_out, ks=(1,))]


def modified(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_subset_and_seed_is_trained_on_equal_terms(place):
    """Equal samples seen and the same words for all; rows of `metrics` name their run."""
    data, shards, evaluations = place
    found = ablate(data, TRAINER, CONFIG, evaluations, shards)
    rows = found.to_pylist()
    wanted = {(s, i) for s in ("all", "few") for i in (0, 1)}
    assert {(r["subset"], r["seed"]) for r in rows} == wanted
    assert Dataset(data.root).rows("metrics") == len(rows) == 4 * 3
    notes = [
        json.loads(p.read_text()) for p in Path(data.root).glob("runs/*/*/step-*/checkpoint.json")
    ]
    assert [n["samples"] for n in notes] == [640] * 4
    words = {p.read_bytes() for p in Path(data.root).glob("runs/*/*/step-*/vocabulary.json")}
    assert len(words) == 1


def test_a_second_call_does_nothing(place):
    """Finished runs are neither trained nor measured again, and the version stays."""
    data, shards, evaluations = place
    first = ablate(data, TRAINER, CONFIG, evaluations, shards)
    before, version = modified(Path(data.root) / "runs"), data.at
    second = ablate(Dataset(data.root), TRAINER, CONFIG, evaluations, shards)
    assert second.equals(first)
    assert modified(Path(data.root) / "runs") == before
    assert Dataset(data.root).at == version


def test_more_seeds_and_new_shards_add_runs_and_keep_the_old_ones(place):
    """Only what is new is trained; results of older shards stay under their own run's name."""
    data, shards, evaluations = place
    one = AblateConfig(subsets=("few",), seeds=(0,))
    ablate(data, TRAINER, one, evaluations, shards)
    before = modified(Path(data.root) / "runs")
    ablate(data, TRAINER, AblateConfig(subsets=("few",), seeds=(0, 5)), evaluations, shards)
    assert before.items() <= modified(Path(data.root) / "runs").items()
    add_subset(data, "few", squares(5))
    shards["few"] = export(data, ExportConfig(subset="few"))
    last = ablate(data, TRAINER, one, evaluations, shards)
    runs = {row["run"] for row in rows_of(data)}
    assert len(runs) == 3
    assert set(last["run"].to_pylist()) <= runs


def test_results_that_a_killed_run_left_are_taken_up(place):
    """A part that was written and not published is neither measured again nor counted twice."""
    data, shards, evaluations = place
    found = ablate(data, TRAINER, CONFIG, evaluations, shards)
    for manifest in Path(data.root, "_versions").glob("*.json"):
        if "metrics" in json.loads(manifest.read_text())["tables"]:
            manifest.unlink()
    before = modified(Path(data.root) / "metrics")
    other = AblateConfig(subsets=("few", "all"), seeds=(1, 0))
    again = ablate(Dataset(data.root), TRAINER, other, evaluations, shards)
    key = [("run", "ascending"), ("metric", "ascending")]
    assert again.sort_by(key).equals(found.sort_by(key))
    after = modified(Path(data.root) / "metrics")
    assert {k: v for k, v in after.items() if k.endswith("parquet")} == {
        k: v for k, v in before.items() if k.endswith("parquet")
    }
    assert len(rows_of(data)) == found.num_rows


def test_another_evaluation_measures_again_and_trains_nothing(place, tmp_path):
    """Checkpoints are kept; a changed evaluation set gives new rows."""
    data, shards, evaluations = place
    one = AblateConfig(subsets=("few",), seeds=(0,))
    ablate(data, TRAINER, one, evaluations, shards)
    before = modified(Path(data.root) / "runs")
    path = retrieval_set(tmp_path / "other.parquet", squares(4, start=2000))
    found = ablate(data, TRAINER, one, [Retrieval(name="other", path=path, ks=(1,))], shards)
    assert {m.split("/")[0] for m in found["metric"].to_pylist()} == {"other"}
    assert modified(Path(data.root) / "runs") == before


def test_what_is_missing_is_named(place):
    """A subset without shards, no evaluation, a set that is not there, a remote root."""
    data, shards, evaluations = place
    with pytest.raises(ValueError, match=r"subset 'all' has no exported shards .* few"):
        ablate(data, TRAINER, CONFIG, evaluations, {"few": shards["few"]})
    with pytest.raises(ValueError, match="at least one of `evaluations`"):
        ablate(data, TRAINER, CONFIG, [], shards)
    with pytest.raises(ValueError, match="nowhere: no such evaluation set"):
        ablate(data, TRAINER, CONFIG, [Retrieval(path="nowhere")], shards)
    with pytest.raises(ValueError, match="has to be a local folder"):
        ablate(Dataset("memory://ablate"), TRAINER, CONFIG, evaluations, shards)


@pytest.mark.slow
def test_ray_workers_give_the_same_results_as_none(place):
    """Export and ablation on a Ray worker: the same shards, the same rows."""
    data, shards, evaluations = place
    here = {p.name: p.read_bytes() for p in Path(shards["all"]).glob("*.*")}
    out = str(Path(data.root).parent / "on_ray")
    export(data, ExportConfig(subset="all", out=out, shard_rows=5), workers=1)
    one_piece = export(data, ExportConfig(subset="all", out=out), workers=1)
    assert {p.name: p.read_bytes() for p in Path(one_piece).glob("*.*")} == here
    one = AblateConfig(subsets=("few",), seeds=(0,))
    found = ablate(data, TRAINER, one, evaluations, shards, workers=1)
    other = pool(Path(data.root).parent / "other", squares(24))
    again = ablate(other, TRAINER, one, evaluations, shards)
    assert found.equals(again)


# ------------------------------------------------------------------------------- reading the result


def table(values: dict[str, list[float]]) -> pa.Table:
    rows = [
        {
            "run": f"r/{s}-{i}",
            "subset": s,
            "seed": i,
            "step": 1,
            "metric": METRIC,
            "value": v,
            "n": 9,
        }
        for s, own in values.items()
        for i, v in enumerate(own)
    ]
    return pa.Table.from_pylist(rows, METRICS)


@settings(deadline=None)  # the first example imports scipy
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40))
def test_the_interval_is_scipys_paired_t_interval(pairs):
    """Mean difference and 95 % interval agree with scipy's t-test of the differences."""
    from scipy import stats

    differences = np.array([a - b for a, b in pairs])
    found = paired_difference(
        table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}), "a", "b", METRIC
    )
    half = stats.t.ppf(0.975, len(pairs) - 1) * differences.std(ddof=1) / math.sqrt(len(pairs))
    wanted = (differences.mean(), differences.mean() - half, differences.mean() + half)
    assert found == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 20, 100, 10_000])
def test_the_quantile_of_t_is_scipys(freedom):
    """To four digits, without scipy."""
    from scipy import stats

    assert t_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4)


def test_one_seed_says_nothing_about_the_spread():
    """The interval of a single difference is infinite, and the summary leaves it out."""
    metrics = table({"a": [0.5], "b": [0.4]})
    assert paired_difference(metrics, "a", "b", METRIC) == (pytest.approx(0.1), -math.inf, math.inf)
    assert summary(metrics, "b").splitlines()[1].split() == [METRIC, "50.0", "40.0", "+10.0"]


def test_the_summary_shows_mean_spread_and_difference():
    """In percent and points, a line per metric."""
    metrics = table({"curated": [0.5, 0.6, 0.7], "random": [0.4, 0.5, 0.6]})
    head, line = summary(metrics, baseline="random").splitlines()
    assert head.split("  ")[0] == "metric"
    assert "curated - random" in head
    assert "60.0 ± 10.0" in line
    assert "50.0 ± 10.0" in line
    assert "+10.0 [+10.0, +10.0]" in line


def test_what_cannot_be_compared_is_refused():
    """A metric that is not there, and subsets without a common seed."""
    metrics = table({"a": [0.5], "b": [0.4]})
    with pytest.raises(ValueError, match="no value of 'acc1' for subset 'a'"):
        paired_difference(metrics, "a", "b", "acc1")
    other = metrics.set_column(2, METRICS.field("seed"), pa.array([0, 1]))
    with pytest.raises(ValueError, match=r"share no seed: \[0\] and \[1\]"):
        paired_difference(other, "a", "b", METRIC)


def rows_of(data: Dataset) -> list[dict]:
    fresh = Dataset(data.root)
    return [
        row for part in fresh.parts("metrics") for row in fresh.read("metrics", part).to_pylist()
    ]


def test_equal_epochs_train_small_subsets_for_fewer_samples(place):
    """At equal epochs a subset of 9 of 24 pairs sees 9 / 24 of the samples; the largest one's run
    is the one at equal samples, trained once.
    """
    data, shards, evaluations = place
    config = AblateConfig(subsets=("all", "few"), seeds=(0,), equal=("samples", "epochs"))
    found = ablate(data, TRAINER, config, evaluations, shards)
    runs = {r["run"].rsplit("-", 1)[0] for r in found.to_pylist()}
    assert runs == {f"{label}/{s}-0" for label in ("clip", "clip@epochs") for s in ("all", "few")}
    notes = [
        json.loads(p.read_text()) for p in Path(data.root).glob("runs/*/*/step-*/checkpoint.json")
    ]
    batch = TRAINER.batch_size
    few = math.ceil(max(batch, round(TRAINER.samples_seen * 9 / 24)) / batch) * batch
    assert sorted(n["samples"] for n in notes) == sorted([few, 640, 640])
    blocks = summary(found, "all").split("\n\n")
    assert [b.splitlines()[0] for b in blocks] == ["at equal samples seen:", "at equal epochs:"]
    assert "few - all" in blocks[1]
