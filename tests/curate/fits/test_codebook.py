"""codebook: a captioner of the pool itself, whose validation pairs it has not seen."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from curate.dataset import Dataset
from curate.filter import filter_pairs
from curate.fits import codebook, codebook_pairs
from curate.fits.codebook import CHECKPOINT, MODEL
from models.codebook import load_codebook
from models.codebook_training import CodebookTraining
from schemas.configs import CodebookCaptioner, OpenClipEncoder, Rule
from tests.gallery import HOSTILE, shape
from tests.shapes import TINY, picture
from tests.stored import BROKEN, Stored, discs, stored, tiny_clip


def drawn(count: int, start: int = 0) -> list[Stored]:
    """Pairs of pictures; captions end in a number, so that no two are equal."""
    found = []
    for i in range(start, start + count):
        pixels, caption = picture(i)
        encoded = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        found.append(Stored(f"http://a/{i}.png", f"{caption} {i}", encoded))
    return found


def fitted(data: Dataset, config: CodebookCaptioner = TINY) -> Path:
    return Path(data.path, "_artifacts", config.name, codebook.fit(data, config))


def plan(folder: Path) -> dict[str, bool]:
    rows = pq.read_table(folder / "pairs.parquet").to_pydict()
    return dict(zip(rows["uid"], rows["held_out"], strict=True))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Dataset:
    return stored(tmp_path_factory.mktemp("pool"), drawn(30))


@pytest.fixture(scope="module")
def folder(pool) -> Path:
    return fitted(pool)


# ------------------------------------------------------------------------------ what is written


def test_an_artifact_has_all_that_is_needed(folder: Path):
    """Weights that load, the log, curves and samples; no checkpoint stays behind."""
    names = {file.name for file in folder.iterdir()}
    assert names == {
        *("_done", "pairs.parquet", "vocabulary.json", "log.jsonl", "curves.svg"),
        *("samples.json", "samples.svg", MODEL),
    }
    model = load_codebook(folder, TINY)
    held_out = {uid for uid, held in plan(folder).items() if held}
    samples = json.loads((folder / "samples.json").read_text())
    assert {row["uid"] for row in samples} <= held_out
    assert samples
    words = set(model.vocabulary.words)
    assert all(set(row["generated"].split()) <= words for row in samples)
    for name in ("curves.svg", "samples.svg"):
        assert ET.parse(folder / name).getroot().tag.endswith("svg")


def test_the_log_has_losses_baselines_and_codes(folder: Path):
    """A line every `log_every` steps, finite, with the baselines beside the held-out loss."""
    found = lines(folder)
    assert [line["step"] for line in found] == [2, 4, 6]
    names = ("train", "validation", "unigram", "mean_image", "other_image", "perplexity")
    for line in found:
        assert all(np.isfinite(line[name]) and line[name] > 0 for name in names)
        assert 0 < line["codes_in_use"] <= 1
        assert 0 < line["validation_codes_in_use"] <= 1
    assert len({line["unigram"] for line in found}) == 1


def test_the_words_are_of_trained_captions_alone(folder: Path):
    """What only held-out captions say is unknown; their loss cannot use it."""
    rows = pq.read_table(folder / "pairs.parquet").to_pylist()
    said = {w for r in rows if not r["held_out"] for w in r["caption"].split()}
    unseen = {w for r in rows if r["held_out"] for w in r["caption"].split()} - said
    known = set(load_codebook(folder, TINY).vocabulary.words)
    assert known <= said
    assert unseen
    assert not known & unseen


def test_a_pretrained_tower_is_tuned_and_kept_whole(pool, tmp_path):
    """The artifact has the tower's tuned weights: its checkpoint is not needed to load them."""
    config = TINY.model_copy(update={"encoder": OpenClipEncoder(model=str(tiny_clip(tmp_path)))})
    folder = fitted(pool, config)
    before = load_file(tmp_path / "open_clip_model.safetensors")["visual.conv1.weight"]
    (tmp_path / "open_clip_model.safetensors").unlink()
    tuned = load_codebook(folder, config).encoder.trunk.conv1.weight
    assert not torch.equal(tuned, before)
    assert torch.allclose(tuned, before, atol=0.1)


# ------------------------------------------------------------------------------ killed


class KilledError(Exception):
    """What ends a training in the middle of a step."""


@pytest.mark.parametrize("at", [1, 3, 4, 5])
def test_a_killed_fit_goes_on_to_the_same_bytes(pool, folder, tmp_path, monkeypatch, at: int):
    """Wherever it was killed: weights, log, curves and samples are those of a run in one go."""
    data = stored(tmp_path, drawn(30))
    step, seen = CodebookTraining.__call__, []

    def dying(self, number):
        seen.append(number)
        if number == at and len(seen) == at + 1:
            raise KilledError
        return step(self, number)

    monkeypatch.setattr(CodebookTraining, "__call__", dying)
    with pytest.raises(KilledError):
        codebook.fit(data, TINY)
    again = fitted(Dataset(data.root))
    begin = at // TINY.checkpoint_every * TINY.checkpoint_every
    assert seen == [*range(at + 1), *range(begin, TINY.steps)]
    for name in (MODEL, "log.jsonl", "curves.svg", "samples.json", "samples.svg"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_finished_fit_trains_nothing(pool, folder, monkeypatch):
    """The second call gives the same artifact without a step."""
    monkeypatch.setattr(CodebookTraining, "__init__", None)
    assert fitted(pool) == folder


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    """By its identity, and where it is no checkpoint at all: the error names the file."""
    data, changed = stored(tmp_path, drawn(12)), TINY.model_copy(update={"lr": 0.1})
    data.artifact("codebook", "one", lambda s: codebook._plan(data, TINY, Path(s)))
    one = f"{data.path}/_artifacts/codebook/one"
    codebook.train(data, TINY, one, max_steps=2)
    file = Path(one, CHECKPOINT)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: no checkpoint of this train"):
        codebook.train(data, changed, one)
    save_file(load_file(file), file)  # without what it says of itself
    with pytest.raises(ValueError, match="made by None"):
        codebook.train(data, TINY, one)
    file.write_bytes(b"torn")
    with pytest.raises(ValueError, match="delete it to start anew"):
        codebook.train(data, TINY, one)
    file.unlink()
    codebook.train(data, TINY, one)
    assert Path(one, MODEL).is_file()


# ------------------------------------------------------------------------------ whom it learns from


def test_neither_parts_nor_place_change_a_model(folder, tmp_path):
    """The same pairs in other parts and elsewhere give the same weights."""
    other = fitted(stored(tmp_path, drawn(30), parts=4))
    assert plan(other) == plan(folder)
    assert (other / MODEL).read_bytes() == (folder / MODEL).read_bytes()


def test_held_out_pairs_are_not_seen(folder, tmp_path):
    """Other images in the held-out pairs: the weights are the same to the bit."""
    held = {uid for uid, out in plan(folder).items() if out}
    pairs = [
        Stored(p.url, p.caption, shape(i)) if p.uid in held else p for i, p in enumerate(drawn(30))
    ]
    other = fitted(stored(tmp_path, pairs))
    assert plan(other) == plan(folder)
    assert (other / MODEL).read_bytes() == (folder / MODEL).read_bytes()
    assert lines(other)[-1]["validation"] != lines(folder)[-1]["validation"]


def test_pairs_that_share_image_or_caption_are_held_out_together(tmp_path):
    """Copies under another caption, and other images under the same one."""
    pairs = drawn(40)
    copies = [Stored(f"{p.url}?i", f"copy of {p.caption}", p.image) for p in pairs]
    named = [Stored(f"{p.url}?t", f" {p.caption.upper()}", shape(i)) for i, p in enumerate(pairs)]
    held = plan(fitted(stored(tmp_path, [*pairs, *copies, *named])))
    assert {True, False} == set(held.values())
    for own in zip(pairs, copies, named, strict=True):
        assert len({held[p.uid] for p in own}) == 1


def test_it_learns_from_survivors(tmp_path):
    """Who failed a rule, has no caption or no image is neither trained on nor held out."""
    gone = [
        Stored("http://a/gone", "gone", None),
        Stored("http://a/blank", " \u2003", shape(1)),
        Stored("http://a/none", None, shape(2)),
    ]
    data = stored(tmp_path, [*drawn(20), *gone, *discs(5)])
    filter_pairs(data, [Rule(name="disc", drop_if="urls__caption LIKE 'a disc, number%'")])
    assert set(plan(fitted(data))) == {p.uid for p in drawn(20)}


def test_images_that_cannot_be_decoded_are_left_out(tmp_path):
    """Pixels and captions of the others, in their order; a pool of broken ones is refused."""
    broken = [Stored(f"http://a/broken/{i}", f"broken {i}", BROKEN + bytes([i])) for i in range(9)]
    data = stored(tmp_path / "some", [*drawn(9), *broken])
    rows = codebook_pairs.plan(data, TINY).to_pylist()
    found, uids = codebook_pairs.pool_pairs(data, rows, 32, tmp_path / "images.npy")
    good = sorted(drawn(9), key=lambda p: p.uid)
    assert uids == [p.uid for p in good]
    assert list(found.captions) == [p.caption for p in good]
    numbers = [int(p.caption.split()[-1]) for p in good]
    assert np.array_equal(found.images, np.stack([picture(n)[0] for n in numbers]))
    with pytest.raises(ValueError, match="no held-out image can be decoded"):
        codebook.fit(stored(tmp_path / "none", broken), TINY)


def test_hostile_captions_stay_text(tmp_path):
    """Markup and control characters in captions reach the samples escaped, and the plots parse."""
    texts = [f"{text} {i}" for i in range(3) for text in HOSTILE]
    pairs = [Stored(f"http://a/{i}", text, shape(i)) for i, text in enumerate(texts)]
    config = TINY.model_copy(update={"validation": 0.5})
    folder = fitted(stored(tmp_path, pairs), config)
    page = (folder / "samples.svg").read_text()
    assert "<script" not in page
    assert "onload=" not in page.replace("onload=&#34;", "")
    ET.parse(folder / "samples.svg")


def test_a_large_held_out_share_is_judged_in_part(tmp_path, monkeypatch):
    """The first by uid are judged; the others are not trained on either."""
    config = TINY.model_copy(update={"validation": 0.5})
    data = stored(tmp_path, drawn(30))
    one = fitted(data, config)
    monkeypatch.setattr(codebook, "JUDGED", 3)
    (one / MODEL).unlink()
    before = lines(one)
    two = fitted(data, config)
    judged = sorted(uid for uid, held in plan(two).items() if held)[:3]
    assert [r["uid"] for r in json.loads((two / "samples.json").read_text())] == judged
    assert [line["train"] for line in lines(two)] == [line["train"] for line in before]
    assert lines(two)[-1]["validation"] != before[-1]["validation"]


def test_at_most_max_pairs_are_taken(tmp_path):
    """A sample by hash, the same whatever the parts."""
    config = TINY.model_copy(update={"max_pairs": 12})
    one = plan(fitted(stored(tmp_path / "one", drawn(30)), config))
    two = plan(fitted(stored(tmp_path / "two", drawn(30), parts=3), config))
    assert one == two
    assert len(one) == 12


@pytest.mark.parametrize("pairs", [[], drawn(1)], ids=["none", "one"])
def test_a_pool_that_is_too_small_is_refused(tmp_path, pairs):
    """The error counts what there is and says what to do."""
    data = stored(tmp_path, pairs)
    with pytest.raises(ValueError, match=rf"of the {len(pairs)} surviving pairs .* use more pairs"):
        codebook.fit(data, TINY)


def test_a_changed_pool_is_another_artifact(tmp_path):
    """Another config, or decisions that came: another key. Only decoding keeps it."""
    data = stored(tmp_path, drawn(12))
    first = codebook.fit(data, TINY)
    told = TINY.model_copy(update={"top_p": 0.5, "num_captions": 3, "max_new_tokens": 2})
    assert codebook.fit(data, told) == first
    assert codebook.fit(data, TINY.model_copy(update={"seed": 1})) != first
    filter_pairs(data, [Rule(name="some", drop_if="urls__caption LIKE '%7'")])
    assert codebook.fit(data, TINY) != first


# ------------------------------------------------------------------------------ clean captions


def clean_set(path: Path, count: int = 8, start: int = 500) -> str:
    rows = [
        {"image": p.image, "caption": [f"zebra {i}", "x"]}
        for i, p in enumerate(drawn(count, start))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_it_is_tuned_on_clean_captions(pool, folder, tmp_path):
    """`clean_steps` more, with their words; a changed file is another artifact."""
    file = tmp_path / "clean.parquet"
    config = TINY.model_copy(update={"clean": clean_set(file), "clean_steps": 4})
    tuned = fitted(pool, config)
    assert lines(tuned)[-1]["step"] == 10
    assert "zebra" in load_codebook(tuned, config).vocabulary.words
    clean_set(file, start=700)
    assert fitted(pool, config) != tuned


@pytest.mark.parametrize("path", ["nowhere.parquet", "nowhere"])
def test_a_clean_set_that_is_not_there_is_refused(pool, tmp_path, path):
    """Before anything is trained, with its path."""
    config = TINY.model_copy(update={"clean": str(tmp_path / path)})
    with pytest.raises(ValueError, match="nowhere"):
        codebook.fit(pool, config)


def test_a_clean_image_that_is_broken_is_refused(pool, tmp_path):
    """A clean set with a hole is another set: the error names it."""
    file = tmp_path / "clean.parquet"
    pq.write_table(pa.Table.from_pylist([{"image": BROKEN, "caption": "red"}]), file)
    with pytest.raises(ValueError, match=r"clean .*clean\.parquet: .*cannot be used"):
        codebook.fit(pool, TINY.model_copy(update={"clean": str(file)}))
