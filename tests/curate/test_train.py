"""Train: resumed runs end with the same bits, subsets of any size see equally many samples."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.encoder import create, load
from curate.train import fit, newest, train
from curate.trainers.clip import ClipTraining, equal, learning_rate
from curate.trainers.pool import Pool, Stream
from curate.trainers.vocabulary import learn_from_shards
from curate.wds import Folder
from schemas.configs import ClipTrainer
from tests.pools import MODEL, TRAINER, exported, squares


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty squares in shards of ten."""
    return exported(tmp_path_factory.mktemp("train"), squares(40), shard_rows=10)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_stopped_training_goes_on_to_the_same_bits(shards, tmp_path):
    """Weights, optimizer, notes and log of a run in three pieces equal those of one in one."""
    words = learn_from_shards(shards, 64)
    whole = fit(shards, tmp_path / "whole", TRAINER, 1, words)
    for steps in (7, 4, None):
        pieces = fit(shards, tmp_path / "pieces", TRAINER, 1, words, max_steps=steps)
    assert files(whole) == files(pieces)
    assert log(tmp_path / "whole") == log(tmp_path / "pieces")


def test_steps_after_the_last_checkpoint_are_taken_again(shards, tmp_path):
    """A run that died between two checkpoints forgets its unsaved steps, and half a checkpoint."""
    config = TRAINER.model_copy(update={"checkpoint_every": 5})
    whole = train(shards, tmp_path / "whole", config)
    out = tmp_path / "killed"
    fit(shards, out, config, 0, learn_from_shards(shards, 64), max_steps=5)
    with (out / "log.jsonl").open("a") as lines:
        lines.write('{"step": 6, "loss": 99}\n{"step": 7, "lo')
    (out / "step-00000010.tmp").mkdir()
    (out / "step-00000010.tmp" / "model.safetensors").write_bytes(b"half")
    assert files(train(shards, out, config)) == files(whole)
    assert log(out) == log(tmp_path / "whole")


def test_a_finished_training_is_not_repeated(shards, tmp_path):
    """A second call returns the checkpoint that is there."""
    first = train(shards, tmp_path / "run", TRAINER)
    changed = (first / "model.safetensors").stat().st_mtime_ns
    assert train(shards, tmp_path / "run", TRAINER) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == changed


def test_a_folder_of_another_run_is_refused(shards, tmp_path):
    """Another seed or recipe never goes on from somebody else's checkpoint."""
    train(shards, tmp_path / "run", TRAINER, seed=0)
    with pytest.raises(ValueError, match=r"holds a run with another recipe.*another `out`"):
        train(shards, tmp_path / "run", TRAINER, seed=1)


def test_loss_falls_on_a_pool_that_can_be_learned(shards, tmp_path):
    """Sixty steps on eight colours take the loss to a tenth of its start."""
    train(shards, tmp_path / "run", TRAINER.model_copy(update={"samples_seen": 1920}))
    losses = [line["loss"] for line in log(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.1 * np.mean(losses[:3])


@pytest.mark.parametrize("n", [5, 24])
def test_subsets_of_any_size_see_equally_many_samples(tmp_path, n):
    """A subset smaller than a batch is gone through several times in it."""
    out = tmp_path / "run"
    config = TRAINER.model_copy(update={"samples_seen": 100})
    last = train(exported(tmp_path, squares(n)), out, config)
    note = json.loads((last / "checkpoint.json").read_text())
    assert (note["step"], note["samples"], note["done"]) == (4, 128, True)
    assert all(np.isfinite(line["loss"]) for line in log(out))


@given(n=st.integers(1, 50), batch=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_pass_shows_every_pair_once(n, batch, seed):
    """The endless order is one permutation after another, whatever the batch size."""
    stream = Stream(n, batch, seed)
    rows = [row for step in range(3 * n // batch + 1) for row in stream.batch(step)]
    for begin in range(0, len(rows) - n + 1, n):
        assert sorted(rows[begin : begin + n]) == list(range(n))


def test_a_step_depends_on_its_number_alone():
    """Asking for a later batch first gives the same batches."""
    forward, backward = Stream(7, 4, 3), Stream(7, 4, 3)
    wanted = [forward.batch(step) for step in range(6)]
    assert [backward.batch(step) for step in reversed(range(6))][::-1] == wanted


def test_equal_captions_are_known():
    """The mask that keeps equal captions from being negatives is true where they are equal."""
    assert equal(["a", "b", "a"]).tolist() == [
        [True, False, True],
        [False, True, False],
        [True, False, True],
    ]


def test_the_rate_warms_up_and_falls_to_nothing():
    """Linear to the peak, then half a cosine."""
    config = ClipTrainer(lr=1.0, warmup=4)
    rates = [learning_rate(config, step, 20) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.02


def test_captions_are_drawn_by_their_weight(tmp_path):
    """A pair with several captions shows each in proportion to its weight, none of weight 0."""
    record = {"captions": [{"text": t, "weight": w} for t, w in (("a", 3), ("b", 1), ("c", 0))]}
    make_tar(
        tmp_path / "0.tar", {"x.jpg": squares(1)[0].encoded, "x.json": json.dumps(record).encode()}
    )
    pool = Pool(Folder(str(tmp_path)))
    drawn = [pool.caption(0, u) for u in np.linspace(0, 1, 400, endpoint=False)]
    assert (drawn.count("a"), drawn.count("b"), drawn.count("c")) == (300, 100, 0)


def test_any_webdataset_folder_can_be_trained_on(tmp_path):
    """Captions come from .txt; samples without an image or a caption are left out."""
    square = squares(1)[0].encoded
    names = {
        "a.jpg": square,
        "a.txt": b"one",
        "b.txt": b"two",
        "c.png": square,
        "d.png": square,
        "d.txt": b" ",
    }
    make_tar(tmp_path / "00000.tar", names)
    pool = Pool(Folder(str(tmp_path)))
    assert [(p.uid, p.texts) for p in pool.pairs] == [("a", ("one",))]
    assert pool.image(0).shape == (40, 40, 3)


def test_an_undecodable_image_costs_itself_and_not_its_batch(tmp_path):
    """The step is taken with the others, and the log names the sample."""
    members = {}
    for square in squares(6):
        members |= {
            f"{square.number}.jpg": square.encoded,
            f"{square.number}.txt": square.caption.encode(),
        }
    make_tar(tmp_path / "0.tar", members | {"bad.jpg": b"<html>", "bad.txt": b"a web page"})
    config = TRAINER.model_copy(update={"batch_size": 7})
    words = learn_from_shards(str(tmp_path), 64)
    run = ClipTraining(config, Pool(Folder(str(tmp_path))), 0, words)
    assert run._batch(0)[0].shape[0] == 6
    assert np.isfinite(run(0)["loss"])


def test_errors_name_what_is_wrong_and_what_to_do(tmp_path, shards):
    """A folder without tars, a remote `out`, a folder without a checkpoint, half a tar."""
    with pytest.raises(ValueError, match=r"no \.tar file there; give the folder"):
        train(str(tmp_path), tmp_path / "run", TRAINER)
    with pytest.raises(ValueError, match="checkpoints are written to a local folder"):
        train(shards, "s3://bucket/run", TRAINER)
    with pytest.raises(ValueError, match="no checkpoint"):
        load(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"x" * 700)
    with pytest.raises(ValueError, match="not a whole tar"):
        train(str(tmp_path), tmp_path / "run", TRAINER)


@pytest.mark.parametrize(
    ("change", "words", "reason"),
    [
        ({"text_cfg": {"vocab_size": 100}}, False, "too small for open_clip's tokenizer; set the"),
        ({"text_cfg": {"vocab_size": 10}}, True, r"vocab_size 10 is below the \d+ ids learned"),
        ({"unknown": 1}, True, "cannot be made .*unknown"),
    ],
)
def test_a_model_that_cannot_be_is_refused(shards, change, words, reason):
    """A token table that does not fit the words, or an argument that open_clip does not know."""
    config = TRAINER.model_copy(update={"model": MODEL | change})
    vocabulary = learn_from_shards(shards, 64) if words else None
    with pytest.raises(ValueError, match=reason):
        create(config, vocabulary, 0)


def test_a_loaded_checkpoint_embeds_as_the_trained_model_does(shards, tmp_path):
    """Weights, words and preparation survive the way through the files."""
    last = train(shards, tmp_path / "run", TRAINER)
    assert newest(tmp_path / "run") == last
    encoder, again = load(last), load(last)
    pool = Pool(Folder(shards))
    images = [pool.image(i) for i in range(5)]
    embedded = encoder.embed_images(images)
    assert embedded.shape == (5, 32)
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert np.array_equal(embedded, again.embed_images(images))
    assert np.array_equal(
        encoder.embed_texts(["a red square"]), again.embed_texts(["a red square"])
    )


@pytest.mark.slow
def test_a_named_architecture_trains_with_open_clips_transforms(shards, tmp_path):
    """open_clip's smallest ViT, its tokenizer and augmentation; a stopped run has the same bits."""
    config = ClipTrainer(
        model="ViT-S-32-alt", samples_seen=12, batch_size=4, warmup=1, threads=1, precision="bf16"
    )
    whole = fit(shards, tmp_path / "whole", config, 0, None)
    fit(shards, tmp_path / "pieces", config, 0, None, max_steps=2)
    assert files(whole) == files(fit(shards, tmp_path / "pieces", config, 0, None))


def make_tar(path: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
