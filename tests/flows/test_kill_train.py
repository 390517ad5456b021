"""SIGKILL in the middle of a training: resumed, it ends with the bits of one that ran through."""

from __future__ import annotations

from pathlib import Path

from curate.train import train
from tests.flows.killing import child, finish, kill_when
from tests.pools import TRAINER, exported, squares

CONFIG = TRAINER.model_copy(update={"samples_seen": 16 * 120, "checkpoint_every": 10})
TRAIN = (
    "import sys; from pathlib import Path; from curate.train import train; "
    "from tests.flows.test_kill_train import CONFIG; "
    "train(sys.argv[1], Path(sys.argv[2]), CONFIG, 3)"
)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run, by its path in it."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_training_killed_twice_ends_with_the_same_bits(tmp_path: Path):
    """Once after the first checkpoint, once in the middle; weights, optimizer and log are equal."""
    shards = exported(tmp_path, squares(40), shard_rows=10)
    train(shards, tmp_path / "whole", CONFIG, 3)
    out = tmp_path / "pieces"
    for step in (10, 50):
        reached = [f"step-{n:08d}" for n in range(step, 120, 10)]
        process = child(TRAIN, shards, out)
        assert kill_when(process, lambda names=reached: any((out / n).exists() for n in names))
    finish(child(TRAIN, shards, out))
    assert files(out) == files(tmp_path / "whole")
