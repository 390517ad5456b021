"""Validate: every form of a set is the same set; a model that learned is far above chance."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.metrics.sets import captioned, labelled
from curate.train import train
from curate.validate import validate
from schemas.configs import Retrieval, ZeroShot
from tests.pools import COLOURS, TRAINER, exported, retrieval_set, squares

HELD_OUT = squares(16, start=1000)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model that has learned eight colours."""
    folder = tmp_path_factory.mktemp("validate")
    config = TRAINER.model_copy(update={"samples_seen": 2560})
    return train(exported(folder, squares(40)), folder / "run", config)


def by_metric(rows: list[dict]) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in rows}


def test_a_model_that_learned_is_far_above_chance(checkpoint, tmp_path):
    """Held-out colours are retrieved and classified; rows say step and number of queries."""
    path = retrieval_set(tmp_path / "pairs.parquet", HELD_OUT)
    labels = {"image": [s.encoded for s in HELD_OUT], "label": [s.colour for s in HELD_OUT]}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    zero_shot = ZeroShot(path=str(tmp_path / "labels.parquet"), templates=("a {} square",))
    rows = validate(checkpoint, [Retrieval(path=path), zero_shot])
    found = by_metric(rows)
    assert found["retrieval/recall@1"] > 0.8
    assert found["zero_shot/acc1"] > 0.8
    assert {row["step"] for row in rows} == {80}
    counts = {row["metric"]: row["n"] for row in rows}
    assert counts["retrieval/text_retrieval_recall@1"] == 16
    assert counts["retrieval/image_retrieval_recall@1"] == len(COLOURS)
    assert counts["zero_shot/acc1"] == 16


def test_shifted_labels_take_a_good_model_to_chance_or_below(checkpoint, tmp_path):
    """The number measures the pairing: with every caption moved on nothing is found."""
    shifted = [s.caption for s in HELD_OUT[1:]] + [HELD_OUT[0].caption]
    path = retrieval_set(tmp_path / "pairs.parquet", HELD_OUT, shifted)
    assert by_metric(validate(checkpoint, [Retrieval(path=path)]))["retrieval/recall@1"] < 0.2


def test_every_form_of_a_retrieval_set_is_the_same_set(tmp_path):
    """Parquet with bytes, paths or Hugging Face's structs, and shards: equal content."""
    made = HELD_OUT[:4]
    for square in made:
        (tmp_path / f"{square.number}.img").write_bytes(square.encoded)
    texts = pa.array([[s.caption, "another"] for s in made])
    structs = [{"bytes": s.encoded, "path": None} for s in made]
    forms = {
        "bytes": [s.encoded for s in made],
        "paths": [f"{s.number}.img" for s in made],
        "structs": structs,
    }
    for name, images in forms.items():
        pq.write_table(pa.table({"image": images, "caption": texts}), tmp_path / f"{name}.parquet")
    lines = {s.number: f"{s.caption}\nanother\n".encode() for s in made}
    make_tar(
        tmp_path / "set" / "test" / "0.tar",
        {f"s{s.number}": (s.encoded, "txt", lines[s.number]) for s in made},
    )
    paths = [str(tmp_path / f"{name}.parquet") for name in forms] + [str(tmp_path / "set")]
    for path in paths:
        images, captions = captioned(path)
        assert [image() for image in images] == [s.encoded for s in made]
        assert captions == [[s.caption, "another"] for s in made]


def test_every_form_of_a_labelled_set_is_the_same_set(tmp_path):
    """Class folders, a parquet and CLIP_benchmark's layout give equal classes and labels."""
    made = sorted(HELD_OUT[:4], key=lambda s: s.colour)
    names = [s.colour for s in made]
    for square in made:
        folder = tmp_path / "folders" / square.colour
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(square.encoded)
    table = pa.table({"image": [s.encoded for s in made], "label": names})
    pq.write_table(table, tmp_path / "labels.parquet")
    root = tmp_path / "benchmark"
    contents = {f"s{i:07d}": (s.encoded, "cls", str(i).encode()) for i, s in enumerate(made)}
    make_tar(root / "test" / "0.tar", contents)
    (root / "classnames.txt").write_text("\n".join(names))
    (root / "zeroshot_classification_templates.txt").write_text("a {c} thing.\n")
    for path in ("folders", "labels.parquet", "benchmark"):
        images, labels, classes, templates = labelled(str(tmp_path / path))
        assert [image() for image in images] == [s.encoded for s in made]
        assert (labels, classes) == ([0, 1, 2, 3], names)
        assert templates == (["a {c} thing."] if path == "benchmark" else None)


def test_our_own_shards_are_an_evaluation_set(checkpoint, tmp_path):
    """An exported folder can be named as the set of a retrieval."""
    out = exported(tmp_path, HELD_OUT, name="held_out")
    assert by_metric(validate(checkpoint, [Retrieval(path=out)]))["retrieval/recall@1"] > 0.8


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Retrieval(path="nowhere.parquet"), "nowhere.parquet: no such file"),
        (Retrieval(path="nowhere"), r"no \.tar file there"),
        (ZeroShot(path="nowhere"), "nowhere: no such folder"),
    ],
)
def test_a_set_that_is_not_there_is_named(checkpoint, config, reason):
    """The error says what a set can be."""
    with pytest.raises(ValueError, match=reason):
        validate(checkpoint, [config])


def test_a_broken_set_is_refused(checkpoint, tmp_path):
    """A missing column, a broken image and a label without a name stop it with a reason."""
    made = HELD_OUT[:2]
    pq.write_table(pa.table({"picture": [b"x"], "caption": ["a"]}), tmp_path / "columns.parquet")
    with pytest.raises(ValueError, match="lacks 'image' and has picture, caption"):
        validate(checkpoint, [Retrieval(path=str(tmp_path / "columns.parquet"))])
    broken = {"image": [made[0].encoded, b"<html>"], "caption": ["a", "b"]}
    pq.write_table(pa.table(broken), tmp_path / "broken.parquet")
    with pytest.raises(ValueError, match="evaluation image 1 cannot be used: undecodable image"):
        validate(checkpoint, [Retrieval(path=str(tmp_path / "broken.parquet"))])
    make_tar(tmp_path / "cls" / "test" / "0.tar", {"s0": (made[0].encoded, "cls", b"3")})
    (tmp_path / "cls" / "classnames.txt").write_text("red\n")
    with pytest.raises(ValueError, match="names 1 classes, labels go up to 3"):
        validate(checkpoint, [ZeroShot(path=str(tmp_path / "cls"))])


def make_tar(path: Path, samples: dict[str, tuple[bytes, str, bytes]]) -> None:
    """Samples as image, extension of the other member, and its content."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for key, (image, extension, content) in samples.items():
            for name, data in ((f"{key}.jpg", image), (f"{key}.{extension}", content)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
