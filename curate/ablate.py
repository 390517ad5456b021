"""Ablate: subsets x seeds -> metrics.

One recipe, one vocabulary learned from the whole pool, equal samples seen or equal epochs: what
differs is the subset and the seed. `run` of a row is <trainer>/<subset>-<seed>-<hash>, and
<trainer>@epochs/... for runs at equal epochs.

    root/runs/<trainer>/<subset>-<seed>-<hash>/   a run's log and last checkpoint

The hash names recipe, vocabulary and shards. A run that is finished is not trained again, a result
that is there is not measured again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import storage
from curate.claims import Claim, digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.train import fit, identity
from curate.trainers.vocabulary import learn_from_pool
from curate.validate import validate
from curate.wds import Folder
from models.vocabulary import Vocabulary
from schemas.configs import AblateConfig, ClipTrainer, EvaluationConfig, Workers
from schemas.tables import METRICS


@dataclass(frozen=True)
class Run:
    """One training and where its results go."""

    name: str
    folder: str  # below runs/: two runs that are one training share it
    trainer: ClipTrainer
    subset: str
    seed: int
    shards: str
    claim: Claim
    part: int


def ablate(
    data: Dataset,
    trainer: ClipTrainer,
    config: AblateConfig,
    evaluations: Sequence[EvaluationConfig],
    shards: Mapping[str, str],
    workers: Workers | int = 0,
) -> pa.Table:
    """Train and measure every subset with every seed; returns the rows of `metrics` of these runs.

    shards: the exported folder of each subset. Raises ValueError where one is missing, nothing is
    to be measured, or the dataset is not a local folder (checkpoints are written below it).
    """
    if not storage.is_local(data.fs):
        raise ValueError(
            f"{data.root}: ablations write checkpoints below the dataset; it has to be a local "
            "folder"
        )
    if lacking := [s for s in config.subsets if s not in shards]:
        raise ValueError(
            f"subset {lacking[0]!r} has no exported shards (there are: "
            f"{', '.join(shards) or 'none'}); export it first"
        )
    if not evaluations:
        raise ValueError(
            "an ablation needs at least one of `evaluations`: name a retrieval or zero_shot set"
        )
    words = learn_from_pool(data, trainer.vocabulary) if trainer.vocabulary else None
    runs = plan(data, trainer, config, evaluations, shards, words)
    todo = [i for i, run in enumerate(runs) if data.missing(run.claim, [run.part])]
    run_parts(
        lambda: _worker(data, evaluations, words, runs),
        todo,
        workers,
        label="ablate",
        model=True,
    )
    for run in runs:
        data.publish(run.claim)
    return pa.concat_tables([data.read("metrics", run.part).select(METRICS.names) for run in runs])


def plan(
    data: Dataset,
    trainer: ClipTrainer,
    config: AblateConfig,
    evaluations: Sequence[EvaluationConfig],
    shards: Mapping[str, str],
    words: Vocabulary | None,
) -> list[Run]:
    """The runs, each with its part of `metrics`: the one it has, or the next free one."""
    free = max(_numbers(data), default=-1) + 1
    measured = digest([[e.claimed(), state(e.path)] for e in evaluations])
    folders = {subset: Folder(shards[subset]) for subset in config.subsets}
    states = {subset: folder.state() for subset, folder in folders.items()}
    runs = []
    for terms, subset, seed in product(config.equal, config.subsets, config.seeds):
        told = trainer if terms == "samples" else _of_epochs(trainer, folders, subset)
        who, label = identity(states[subset], told, seed, words), label_of(trainer, terms)
        named = [] if terms == "samples" else [terms]
        artifact = digest([who, trainer.name, subset, measured, *named])
        claim = data.claim("metrics", told, artifact=artifact, append=True, revisable=True)
        part, name = _own_part(data, claim), f"{subset}-{seed}-{who[:8]}"
        at = free if part is None else part
        folder = f"{trainer.name}/{name}"
        runs.append(Run(f"{label}/{name}", folder, told, subset, seed, shards[subset], claim, at))
        free += part is None
    return runs


def label_of(trainer: ClipTrainer, terms: str) -> str:
    """What the names of the runs at these terms begin with."""
    return trainer.name if terms == "samples" else f"{trainer.name}@{terms}"


def _of_epochs(trainer: ClipTrainer, folders: Mapping[str, Folder], subset: str) -> ClipTrainer:
    """The trainer with samples for as many epochs of a subset as of the largest one."""
    sizes = {name: sum(1 for _ in folder.samples()) for name, folder in folders.items()}
    seen = round(trainer.samples_seen * sizes[subset] / max(sizes.values()))
    return trainer.model_copy(update={"samples_seen": max(trainer.batch_size, seen)})


def _numbers(data: Dataset) -> set[int]:
    """Numbers of the parts of `metrics` that are there, published or not."""
    found = storage.names(data.fs, f"{data.path}/metrics")
    return {int(name[:8]) for name in found if name[:8].isdigit()}


def _own_part(data: Dataset, claim: Claim) -> int | None:
    """The part that holds this run's results: a published one, or one that a killed run left."""
    published = data.parts("metrics") if "metrics" in data.tables() else {}
    for part, entry in published.items():
        if entry.inputs.get("artifact") == claim.artifact:
            return part
    left = sorted(_numbers(data) - set(published))
    return next((part for part in left if not data.missing(claim, [part])), None)


def state(path: str) -> str:
    """A hash that changes with the files of an evaluation set: their names and sizes."""
    fs, root = fsspec.core.url_to_fs(path)
    if not fs.exists(root):
        raise ValueError(
            f"{path}: no such evaluation set; give a parquet file, a WebDataset folder or a folder "
            "of class folders"
        )
    found = fs.find(root, detail=True)
    return digest(sorted([name[len(root) :], info["size"]] for name, info in found.items()))


def _worker(
    data: Dataset,
    evaluations: Sequence[EvaluationConfig],
    words: Vocabulary | None,
    runs: Sequence[Run],
) -> Work:
    """`work(i)` trains and measures run i."""

    def work(number: int) -> Stats:
        run = runs[number]
        folder = Path(data.path) / "runs" / run.folder
        checkpoint = fit(run.shards, folder, run.trainer, run.seed, words)
        who = {"run": run.name, "subset": run.subset, "seed": run.seed}
        rows = [{**who, **row} for row in validate(checkpoint, evaluations)]
        data.write(run.claim, run.part, pa.Table.from_pylist(rows, METRICS))
        return {"rows": run.trainer.samples_seen}

    return work


# ------------------------------------------------------------------------------- reading the result


def at_terms(metrics: pa.Table, terms: str) -> pa.Table:
    """The rows of the runs at equal `samples` or `epochs`."""
    of_epochs = pc.match_substring(metrics["run"], "@epochs/")
    return metrics.filter(of_epochs if terms == "epochs" else pc.invert(of_epochs))


def values(metrics: pa.Table, subset: str, metric: str) -> dict[int, float]:
    """A subset's value of a metric by seed. Raises ValueError where the table has none."""
    chosen = metrics.filter((pc.field("subset") == subset) & (pc.field("metric") == metric))
    if not chosen.num_rows:
        have = sorted(
            set(zip(metrics["subset"].to_pylist(), metrics["metric"].to_pylist(), strict=True))
        )
        raise ValueError(f"no value of {metric!r} for subset {subset!r}; the table has {have}")
    return dict(zip(chosen["seed"].to_pylist(), chosen["value"].to_pylist(), strict=True))


def paired_difference(metrics: pa.Table, a: str, b: str, metric: str) -> tuple[float, float, float]:
    """Mean of a - b over the seeds that both have, and the ends of its 95 % t-interval.

    With one shared seed the interval is infinite. Raises ValueError where none is shared.
    """
    left, right = values(metrics, a, metric), values(metrics, b, metric)
    differences = np.array([left[s] - right[s] for s in sorted(left.keys() & right.keys())])
    if not len(differences):
        raise ValueError(
            f"{a!r} and {b!r} share no seed: {sorted(left)} and {sorted(right)}; run both with the "
            "same `seeds`"
        )
    mean, n = float(differences.mean()), len(differences)
    half = math.inf if n == 1 else t_975(n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: a table up to 10 degrees, then Cornish-Fisher."""
    table = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
    if freedom <= len(table):
        return table[freedom - 1]
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**i for i, term in enumerate(terms))


def summary(metrics: pa.Table, baseline: str | None = None) -> str:
    """A table for the terminal: mean ± standard deviation over seeds per subset, in percent; one
    at equal samples seen and one at equal epochs where there are both.

    baseline: a subset; then also each other subset's paired difference from it with its 95 %
    interval, in points.
    """
    both = {terms: at_terms(metrics, terms) for terms in ("samples", "epochs")}
    there = {terms: rows for terms, rows in both.items() if rows.num_rows}
    if len(there) < len(both):
        return _table(next(iter(there.values()), metrics), baseline)
    words = {"samples": "equal samples seen", "epochs": "equal epochs"}
    return "\n\n".join(f"at {words[t]}:\n{_table(rows, baseline)}" for t, rows in there.items())


def _table(metrics: pa.Table, baseline: str | None) -> str:
    subsets = list(dict.fromkeys(metrics["subset"].to_pylist()))
    names = list(dict.fromkeys(metrics["metric"].to_pylist()))
    lines = [
        ["metric", *subsets, *(f"{s} - {baseline}" for s in subsets if baseline and s != baseline)]
    ]
    for name in names:
        cells = [_spread(list(values(metrics, s, name).values())) for s in subsets]
        gaps = [
            _gap(*paired_difference(metrics, s, baseline, name))
            for s in subsets
            if baseline and s != baseline
        ]
        lines.append([name, *cells, *gaps])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _spread(found: list[float]) -> str:
    spread = f" ± {100 * float(np.std(found, ddof=1)):.1f}" if len(found) > 1 else ""
    return f"{100 * float(np.mean(found)):.1f}{spread}"


def _gap(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.1f}" + (
        "" if math.isinf(low) else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    )
