"""Codebook: train the codebook captioner on the pool itself, then on clean captions.

    pairs.parquet            the pairs it is trained on, and those that are held out
    vocabulary.json          the words it knows
    checkpoint.safetensors   weights, optimizer and step, while it trains
    log.jsonl                losses in nats per word, perplexity, codes in use over the steps
    curves.svg               the same, drawn
    samples.json, .svg       what it says of some images that were held out
    model.safetensors        the trained weights: what makes the artifact whole

1. Plan: who is trained on, who is held out, which words there are.
2. Train; the loss of what is held out stands beside that of words by their frequency (`unigram`)
   and of the same decoder shown another image, or the mean of all (`other_image`, `mean_image`).
3. A killed fit goes on from its checkpoint to the same weights, on one kind of CPU.

At the default sizes 9 ms of CPU time per image and step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.claims import digest
from curate.dataset import Dataset
from curate.engine import Stats, Work, run_parts
from curate.fits.codebook_pairs import (
    TABLES,
    clean_captions,
    clean_pairs,
    clean_state,
    plan,
    pool_pairs,
    read_plan,
)
from curate.progress import progress
from curate.reporting.curves import curves_svg, samples_svg
from curate.storage import as_local, replace
from schemas.configs import CodebookCaptioner, Workers

if TYPE_CHECKING:
    from models.codebook_training import CodebookTraining, Pairs

CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"
JUDGED = 1000  # held-out pairs, at most, whose loss is computed: the first by uid
SHOWN = 12  # of these, whose captions are shown


def fit(data: Dataset, config: CodebookCaptioner, workers: Workers | int = 0) -> str:
    """Train on the pool at this version; returns the artifact's key. What is trained is kept."""
    state = clean_state(config.clean)
    key = digest([config.trained(), data.fingerprint(TABLES), state])
    folder = data.artifact(config.name, key, lambda scratch: _plan(data, config, Path(scratch)))

    def build() -> Work:
        return lambda part: train(data, config, folder)

    todo = [] if data.fs.exists(f"{folder}/{MODEL}") else [0]
    run_parts(build, todo, workers, label="codebook", model=True)
    return key


def _plan(data: Dataset, config: CodebookCaptioner, folder: Path) -> None:
    from models.codebook import vocabulary_of
    from models.vocabulary import Vocabulary

    rows = plan(data, config)
    pq.write_table(rows, folder / "pairs.parquet")
    trained = rows.filter(pa.compute.invert(rows["held_out"]))["caption"].to_pylist()
    words = Vocabulary.learn([*trained, *clean_captions(config.clean)], config.vocabulary)
    words.save(vocabulary_of(folder))


@dataclass
class Fitting:
    """A training in its artifact's folder. logged: the lines of log.jsonl."""

    data: Dataset
    folder: str
    run: CodebookTraining
    held_out: Pairs
    uids: Sequence[str]  # of the held-out pairs
    logged: list[dict[str, Any]] = field(default_factory=list)

    def resume(self) -> int:
        """Go on from the checkpoint, if there is one; returns the next step.

        Raises ValueError for a checkpoint that another config or pool has made.
        """
        from safetensors import SafetensorError, safe_open

        if not self.data.fs.exists(f"{self.folder}/{CHECKPOINT}"):
            return 0
        with as_local(self.data.fs, self.folder) as local:
            path = local / CHECKPOINT
            try:
                with safe_open(path, "pt") as stream:
                    said = stream.metadata() or {}
                    state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
                self._refuse_another(said)
                self.run.load(state)
            except (SafetensorError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"{path}: no checkpoint of this training ({' '.join(str(error).split())[:200]}"
                    "); delete it to start anew"
                ) from error
            lines = (local / "log.jsonl").read_text().splitlines()
        begin = int(said["step"])
        self.logged = [line for line in map(json.loads, lines) if line["step"] <= begin]
        return begin

    def _refuse_another(self, said: dict[str, str]) -> None:
        mine = self.identity()
        if said.get("identity") != mine:
            raise ValueError(f"made by {said.get('identity')}, this is {mine}")

    def identity(self) -> str:
        """What decides the weights: the config, the words, and by its key the pool."""
        config, words = self.run.config, self.run.vocabulary.words
        return digest([config.trained(), words, Path(self.folder).name])

    def checkpoint(self, step: int) -> None:
        """Write all that a later call needs to go on after so many steps."""
        from safetensors.torch import save

        said = {"step": str(step), "identity": self.identity()}
        self.put(CHECKPOINT, save(self.run.state(), said))

    def log(self, step: int, values: dict[str, float], unigram: float) -> None:
        """Judge what is held out, add a line to the log and draw it."""
        found = values | self.run.evaluate(self.held_out) | {"unigram": unigram}
        self.logged.append({"step": step, **{name: round(v, 6) for name, v in found.items()}})
        self.put("log.jsonl", "".join(json.dumps(line) + "\n" for line in self.logged).encode())
        self.put("curves.svg", str(curves_svg(self.logged)).encode())

    def finish(self) -> None:
        """Show what it says of held-out images, write the weights, forget the checkpoint."""
        from safetensors.torch import save

        images, captions = self.held_out.images[:SHOWN], self.held_out.captions[:SHOWN]
        told = self.run.say(images)
        rows = [
            {"uid": uid, "caption": caption, "generated": said}
            for uid, caption, said in zip(self.uids, captions, told, strict=False)
        ]
        self.put("samples.json", (json.dumps(rows, indent=1) + "\n").encode())
        self.put("samples.svg", str(samples_svg(images, captions, told)).encode())
        self.put(MODEL, save(self.run.weights()))
        if self.data.fs.exists(f"{self.folder}/{CHECKPOINT}"):
            self.data.fs.rm(f"{self.folder}/{CHECKPOINT}")

    def put(self, name: str, content: bytes) -> None:
        """Write a file of the artifact, whole or not at all."""
        replace(self.data.fs, f"{self.folder}/{name}", content)


def train(
    data: Dataset, config: CodebookCaptioner, folder: str, max_steps: int | None = None
) -> Stats:
    """Train what the artifact's plan says, from its checkpoint on.

    max_steps: stop after so many steps of this call, at a checkpoint.
    """
    from models.bootstrap import on_threads

    with TemporaryDirectory(prefix="curate-") as scratch, on_threads(config.threads):
        fitting, unigram = _prepared(data, config, folder, Path(scratch))
        run, begin = fitting.run, fitting.resume()
        end = run.steps if max_steps is None else min(run.steps, begin + max_steps)
        with progress("codebook", run.steps - begin, "steps") as advance:
            for step in range(begin, end):
                values = run(step)
                advance(config.train_batch_size)
                if (step + 1) % config.log_every == 0 or step + 1 == run.steps:
                    fitting.log(step + 1, values, unigram)
                if (step + 1) % config.checkpoint_every == 0 or step + 1 == end:
                    fitting.checkpoint(step + 1)
        if end == run.steps:
            fitting.finish()
        return {"rows": len(run.phases[0].captions)}


def _prepared(
    data: Dataset, config: CodebookCaptioner, folder: str, scratch: Path
) -> tuple[Fitting, float]:
    """The training at its first step, and the unigram loss of what is held out."""
    from models.codebook import vocabulary_of
    from models.codebook_training import CodebookTraining, unigram_loss
    from models.patches import side_of
    from models.phrases import frequent_phrases
    from models.vocabulary import Vocabulary

    with as_local(data.fs, folder) as local:
        words = Vocabulary.load(vocabulary_of(local))
    rows, side = read_plan(data, folder), side_of(config.encoder)
    pairs = partial(pool_pairs, data, side=side)
    pool = pairs([row for row in rows if not row["held_out"]], file=scratch / "pool.npy")[0]
    judged = [row for row in rows if row["held_out"]][:JUDGED]
    held_out, uids = pairs(judged, file=scratch / "held_out.npy")
    if not uids:
        raise ValueError(f"captioner {config.name!r}: no held-out image can be decoded")
    clean = None
    if config.clean is not None:
        clean = clean_pairs(config.clean, side, scratch / "clean.npy")
    phrases = frequent_phrases(pool.captions, config.codes)
    run = CodebookTraining(config, words, phrases, pool, clean)
    known = words.encode(held_out.captions, config.context_length)
    return Fitting(data, folder, run, held_out, uids), unigram_loss(
        run.tokens[0], known, words.size
    )
