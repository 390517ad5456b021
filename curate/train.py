"""Train: shards -> checkpoints.

open_clip models, small or large, on the shards that export wrote (or any WebDataset folder), for a
fixed number of samples seen: a small subset is gone through more often.

    out/step-00000200/   the newest checkpoint; written beside, then renamed, the older one deleted
    out/log.jsonl        {"step", "samples", "loss", "lr"} per step

A killed training goes on from its newest checkpoint and ends with the same bits (on one kind of
machine with one thread count). Cost of ViT 64 px / patch 16 / width 192 / 6 layers with a 2-layer
text tower: 6.1 ms of CPU time per sample on one thread, 0.07 ms of it for putting batches together.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from curate.claims import digest
from curate.progress import progress
from curate.trainers.clip import ClipTraining
from curate.trainers.pool import Pool
from curate.trainers.vocabulary import learn_from_shards
from curate.wds import Folder
from models.bootstrap import on_threads
from models.vocabulary import Vocabulary
from schemas.configs import ClipTrainer

_STEP = re.compile(r"^step-(\d{8})$")
SPEED = {"checkpoint_every", "name"}  # knobs that change no weight


def train(
    shards: str,
    out: str | Path,
    config: ClipTrainer,
    seed: int = 0,
    vocabulary: str | Path | None = None,
) -> Path:
    """Train on a folder of shards; returns the last checkpoint's folder, `out/step-<n>`.

    vocabulary: file of the words to use; None learns `config.vocabulary` words from the shards'
    captions, so that two subsets get two token tables: to compare them give both the same file
    (`ablate` does so). Samples seen are rounded up to whole batches.
    Raises ValueError where `out` is no local folder or holds another run, or the shards no pair.
    """
    if "://" in str(out):
        raise ValueError(
            f"out {str(out)!r}: checkpoints are written to a local folder; copy them from there"
        )
    if vocabulary is not None:
        return fit(shards, out, config, seed, Vocabulary.load(Path(vocabulary)))
    words = learn_from_shards(shards, config.vocabulary) if config.vocabulary else None
    return fit(shards, out, config, seed, words)


def fit(
    shards: str,
    out: str | Path,
    config: ClipTrainer,
    seed: int,
    vocabulary: Vocabulary | None,
    max_steps: int | None = None,
) -> Path:
    """Train to the end, or on from the newest checkpoint; returns the last checkpoint's folder.

    max_steps: stop after so many steps of this call, at a checkpoint. Raises ValueError where `out`
    holds another run.
    """
    folder, out = Folder(shards), Path(out)
    who = identity(folder.state(), config, seed, vocabulary)
    last = newest(out)
    if last is not None and _note(last)["done"] and _note(last)["identity"] == who:
        return last
    _refuse_other_run(last, who)
    with on_threads(config.threads):
        run = ClipTraining(config, Pool(folder), seed, vocabulary)
        begin = 0 if last is None else int(_note(last)["step"])
        if last is not None:
            run.load(last)
        end = run.steps if max_steps is None else min(run.steps, begin + max_steps)
        return _steps(run, out, begin, end, who)


def _steps(run: ClipTraining, out: Path, begin: int, end: int, who: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    keep_log(out / "log.jsonl", begin)
    batch = run.config.batch_size
    last = out
    with (
        progress("train", run.steps - begin, "steps") as advance,
        (out / "log.jsonl").open("a") as log,
    ):
        for step in range(begin, end):
            values = run(step)
            log.write(
                json.dumps({"step": step + 1, "samples": (step + 1) * batch, **values}) + "\n"
            )
            advance(batch)
            if (step + 1) % run.config.checkpoint_every == 0 or step + 1 == end:
                log.flush()
                last = checkpoint(run, out, step + 1, who)
    return last


def checkpoint(run: ClipTraining, out: Path, step: int, who: str) -> Path:
    """Write a checkpoint, whole or not at all, and delete the older ones."""
    target, beside = out / f"step-{step:08d}", out / f"step-{step:08d}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    run.save(beside)
    note = {
        "identity": who,
        "step": step,
        "samples": step * run.config.batch_size,
        "seed": run.seed,
        "done": step == run.steps,
        "trainer": run.config.model_dump(mode="json"),
    }
    (beside / "checkpoint.json").write_text(json.dumps(note, indent=1) + "\n")
    beside.rename(target)
    for other in out.iterdir():
        if other != target and other.name.startswith("step-"):
            shutil.rmtree(other)
    return target


def newest(out: Path) -> Path | None:
    """The newest whole checkpoint in a run's folder."""
    found = sorted(p for p in out.iterdir() if _STEP.match(p.name)) if out.is_dir() else []
    return found[-1] if found else None


def identity(shards: str, config: ClipTrainer, seed: int, vocabulary: Vocabulary | None) -> str:
    """A hash of all that decides a training's weights."""
    recipe = {k: v for k, v in config.claimed().items() if k not in SPEED}
    return digest([shards, recipe, seed, vocabulary.words if vocabulary else None])


def keep_log(path: Path, steps: int) -> None:
    """Forget the lines after the checkpoint that a run goes on from."""
    lines = path.read_text().splitlines(keepends=True)[:steps] if path.exists() else []
    path.write_text("".join(lines))


def _note(folder: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((folder / "checkpoint.json").read_text())
    return note


def _refuse_other_run(last: Path | None, who: str) -> None:
    if last is not None and _note(last)["identity"] != who:
        raise ValueError(
            f"{last.parent}: holds a run with another recipe, seed, vocabulary or other shards; "
            "choose another `out`, or delete it"
        )
