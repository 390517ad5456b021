"""Contamination: copies of evaluation items are found and named, others stay."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.contamination import cross, match
from curate.contamination.match import decontaminate
from curate.contamination.variants import Variants, says_something
from curate.dataset import Dataset
from curate.demo.drawings import all_drawings
from curate.demo.pictures import encode, original
from curate.score import score
from schemas.configs import BootstrapScorer, ClipScorer, EvaluationItems
from tests.curate.contamination.sets import (
    Pixels,
    cut,
    folder,
    jpg,
    matches,
    pair,
    photos,
    png,
    pool,
    scaled,
)
from tests.gallery import gallery, items
from tests.kinds import bomb
from tests.stored import tiny_clip
from tests.tiny import Row, add_table, samples_of, urls_of, whole

Change = Callable[[Pixels, np.random.Generator], bytes]


def evaluation(path: Any, **knobs: Any) -> EvaluationItems:
    return EvaluationItems(name="test", path=str(path), **knobs)


def found(data: Dataset, config: EvaluationItems, rows: list[Row]) -> dict[tuple[str, str], str]:
    """What the pairs match, by url and method."""
    assert decontaminate(data, [config]) == ["matches_test"]
    return matches(data, "matches_test", rows)


def originals(root: Path, count: int = 36, step: int = 1) -> str:
    """A set of photos: 00.png, 01.png, ..."""
    chosen = range(0, count * step, step)
    return folder(root, {f"{n:02d}.png": png(photos()[n]) for n in chosen})


def quality(draw: np.random.Generator) -> int:
    return int(draw.integers(50, 96))


def resized(image: Pixels, draw: np.random.Generator) -> Pixels:
    return scaled(image, max(image.shape) * float(2 ** draw.uniform(-1, 1)))


def cropped(image: Pixels, draw: np.random.Generator) -> Pixels:
    """Up to a tenth of each side, from either end."""
    (down, across), (a, b) = draw.uniform(0, 0.1, 2), draw.uniform(0, 1, 2)
    return cut(image, a * down, (1 - a) * down, b * across, (1 - b) * across)


CHANGES: dict[str, Change] = {
    "resized": lambda image, draw: png(resized(image, draw)),
    "recompressed": lambda image, draw: jpg(image, quality(draw)),
    "both": lambda image, draw: jpg(resized(image, draw), quality(draw)),
    "mirrored": lambda image, draw: jpg(resized(image[:, ::-1], draw), quality(draw)),
    "cropped": lambda image, draw: jpg(cropped(image, draw), quality(draw)),
}


@pytest.fixture(scope="module")
def drawings() -> list[Row]:
    """Pairs of 400 of OpenMoji's drawings, no photo among them."""
    codes = [drawing.code for drawing in all_drawings()[::10]]
    return [pair(code, encode(original(code, 0))) for code in codes]


def test_copies_are_found_and_others_stay(tmp_path, drawings):
    """Recall of resized and recompressed photos is 0.99 or more, that of crops 0.95; at most 0.1 %
    of other pictures match; each copy is told of which item.
    """
    rows = list(drawings)
    for n, image in enumerate(photos()):
        draw = np.random.default_rng(n)
        rows += [pair(f"{kind}/{n:02d}.png", make(image, draw)) for kind, make in CHANGES.items()]
    told = found(pool(tmp_path / "pool", rows), evaluation(originals(tmp_path / "set")), rows)
    recall = {
        kind: np.mean(
            [told.get((f"{kind}/{n:02d}.png", "phash")) == f"{n:02d}.png" for n in range(36)]
        )
        for kind in CHANGES
    }
    assert all(recall[kind] >= 0.99 for kind in CHANGES if kind != "cropped"), recall
    assert recall["cropped"] >= 0.95
    assert sum(row.url in {url for url, _ in told} for row in drawings) <= 0.001 * len(drawings)


def test_the_matches_are_those_of_comparing_everything(tmp_path, monkeypatch):
    """Of each pair the nearest variant within both thresholds: by bits, then thumbnail, then key;
    in whatever pieces it is computed.
    """
    draw = np.random.default_rng(1)
    rows = [
        pair(f"{kind}/{n}", make(photos()[n], draw))
        for n in range(0, 24, 2)
        for kind, make in CHANGES.items()
    ]
    names = {n: ["a.png", "b.png", f"{n:02d}.png"][n % 3] for n in range(0, 24, 2)}
    files = {f"{n // 3}/{name}": png(photos()[n]) for n, name in names.items()}
    files |= {f"twin/{n}.png": png(photos()[n]) for n in (0, 6)}
    config = evaluation(folder(tmp_path / "set", files), radius=10, max_rms=20.0)
    variants = Variants(config, {})
    prints = {name: variants.fingerprints(variants.image(body)) for name, body in files.items()}
    data = pool(tmp_path / "pool", rows, 3)
    monkeypatch.setattr(cross, "SMALL", 0)
    monkeypatch.setattr(match, "PAIRS", 7)
    decontaminate(data, [config])
    told = {m["uid"]: (m["item"], m["distance"]) for m in whole(data, "matches_test")}
    assert told == by_hand(rows, prints, 10, 20.0)
    assert len(told) >= len(rows) - 2


def by_hand(
    rows: list[Row], prints: dict[str, list[tuple[int, bytes]]], radius: int, max_rms: float
) -> dict[str, tuple[str, float]]:
    told = {}
    for row in rows:
        mine = np.frombuffer(row.thumbnail or b"", np.uint8).astype(int)
        near = []
        for name, variants in prints.items():
            for hashed, small in variants:
                bits = (hashed ^ (row.phash or 0)).bit_count()
                squares = int(((np.frombuffer(small, np.uint8) - mine) ** 2).sum())
                if bits <= radius and (squares / 192) ** 0.5 <= max_rms:
                    near.append((bits, squares, name))
        if near:
            told[row.uid] = (min(near)[2], float(min(near)[0]))
    return told


def test_the_pool_itself_matches_itself(tmp_path):
    """A set of the pool's own pictures: each that has information is its own nearest item."""
    rows = [pair(f"{n:02d}.png", png(image)) for n, image in enumerate(photos())]
    told = found(pool(tmp_path / "pool", rows), evaluation(originals(tmp_path / "set")), rows)
    assert told == {(row.url, "phash"): row.url for row in rows}


def test_mirrored_and_cropped_copies_count_where_asked_for(tmp_path):
    """Without `mirror` and `crop` only whole, unmirrored copies match."""
    image = photos()[10]
    bodies = {"same": image, "mirrored": image[:, ::-1], "cropped": cut(image, 0.05, 0.04, 0.08, 0)}
    rows = [pair(url, png(np.ascontiguousarray(body))) for url, body in bodies.items()]
    path = folder(tmp_path / "set", {"1.png": png(image)})
    for mirror in (False, True):
        for crop in (0.0, 0.1):
            data = pool(tmp_path / f"pool-{mirror}-{crop}", rows)
            told = {url for url, _ in found(data, evaluation(path, mirror=mirror, crop=crop), rows)}
            expected = {"same": True, "mirrored": mirror, "cropped": crop > 0}
            assert told == {url for url, matches in expected.items() if matches}


def test_blank_items_match_nothing(tmp_path):
    """An image of one colour is no evidence: neither blank pairs nor others match it."""
    blank = [np.full((90, 120, 3), level, np.uint8) for level in (0, 128, 255)]
    files = {f"{n}.png": png(image) for n, image in enumerate(blank)}
    rows = [pair(f"blank {n}", jpg(image)) for n, image in enumerate(blank)]
    rows += [pair("photo", png(photos()[0])), Row("no hash", phash=None)]
    rows.append(replace(pair("no thumbnail", png(photos()[1])), thumbnail=None))
    data = pool(tmp_path / "pool", rows)
    assert found(data, evaluation(folder(tmp_path / "set", files)), rows) == {}
    assert not any(says_something(h) for h in (0, 1, 2**64 - 1, 1 << 63))


def test_hostile_items_cost_themselves(tmp_path, caplog):
    """What cannot be decoded is counted in one line; nothing that can be is an error."""
    whole_one = png(photos()[4])
    files = {"empty.jpg": b"", "half.png": whole_one[:9000], "text.gif": b"<svg/>"}
    bad = folder(tmp_path / "bad", files | {"bomb.png": bomb(20_000)})
    good = folder(tmp_path / "set", {"good.png": whole_one} | files)
    rows = [pair("copy", jpg(photos()[4])), pair("failed", whole_one, status="failed_to_download")]
    data = pool(tmp_path / "pool", rows)
    with caplog.at_level(logging.WARNING, logger="curate"):
        assert found(data, evaluation(good), rows) == {("copy", "phash"): "good.png"}
    (line,) = [r.getMessage() for r in caplog.records if "cannot be used" in r.getMessage()]
    assert "3 of 4 images cannot be used (empty.jpg: " in line
    with pytest.raises(
        ValueError, match=r"none of its 4 images can be used; the first: bomb\.png: "
    ):
        decontaminate(data, [evaluation(bad).model_copy(update={"name": "bad"})])


def test_only_what_is_new_is_computed(tmp_path):
    """A rerun writes nothing and reads no set; a new part is matched alone; a changed set anew."""
    path = originals(tmp_path / "set", 2)
    rows = [pair("one", jpg(photos()[0])), pair("two", jpg(photos()[1]))]
    data = pool(tmp_path / "pool", rows, lambda uid: 0)
    config = evaluation(path)
    assert len(found(data, config, rows)) == 2
    before, version = written(tmp_path), data.at
    decontaminate(data, [config])
    assert (written(tmp_path), data.at) == (before, version)
    later = [pair("three", jpg(photos()[1], 60))]
    add_table(data, "urls", {1: urls_of(later)}, ())
    add_table(data, "samples", {1: samples_of(later)}, ("urls",))
    told = found(data, config, rows + later)
    assert told["three", "phash"] == "01.png"
    assert {name for name in written(tmp_path).keys() - before.keys() if "matches" in name} == {
        "matches_test/00000001.g0.parquet"
    }
    folder(Path(path), {"00.png": png(photos()[2])})
    assert ("one", "phash") not in found(data, config, rows + later)


def written(root: Path) -> dict[str, int]:
    """The parts and artifacts there, and when they were written."""
    files = [*(root / "pool").glob("*/*.parquet"), *(root / "pool").glob("_artifacts/*/*/*")]
    return {str(f.relative_to(root / "pool")): f.stat().st_mtime_ns for f in files}


def test_sets_come_and_go(tmp_path):
    """Each set has its table; one that is no longer named is retired; another config is refused."""
    rows = [pair("one", jpg(photos()[0]))]
    data = pool(tmp_path / "pool", rows)
    config = evaluation(originals(tmp_path / "set", 3))
    other = EvaluationItems(name="other", path=originals(tmp_path / "other", 2, 20))
    assert decontaminate(data, [config, other]) == ["matches_test", "matches_other"]
    assert matches(data, "matches_other", rows) == {("one", "phash"): "00.png"}
    with pytest.raises(ValueError, match=r"made with another config \(radius: "):
        decontaminate(data, [config.model_copy(update={"radius": 4})])
    assert decontaminate(data, []) == []
    assert not [t for t in data.tables() if t.startswith("matches_")]


def test_captions_that_say_the_same_match(tmp_path):
    """Equal but for case, signs, width and blanks, and long enough; the lowest key of several."""
    images = [png(photos()[n]) for n in (0, 9, 18)]
    captions = [
        ["Two cats, asleep."],
        ["a dog", "TWO  CATS asleep"],
        ["\uff21 red  apple-tree\u00df"],
    ]
    table = pa.table({"image": images, "caption": captions})
    pq.write_table(table, tmp_path / "set.parquet")
    texts = [
        "two CATS asleep",
        "A dog!",
        "a red apple treeSS",
        "two cats",
        None,
    ]
    rows = [Row(f"u{n}", text) for n, text in enumerate(texts)]
    rows.append(Row("failed", "two cats asleep", status="failed_to_download"))
    data = pool(tmp_path / "pool", rows)
    told = found(data, evaluation(tmp_path / "set.parquet", caption_words=3), rows)
    assert told == {("u0", "caption"): "0", ("u2", "caption"): "2"}


@pytest.mark.parametrize("kind", ["clip", "bootstrap"])
def test_embeddings_find_the_nearest_item(tmp_path, kind):
    """With a scorer's embeddings a pair's nearest item is the one that shows the same, down to
    `min_similarity`; the distance is 1 - cosine.
    """
    numbered = [replace(item, caption=f"disc {n}") for n, item in enumerate(items(24))]
    shown = [item for item in numbered if item.image]
    data = gallery(tmp_path / "pool", shown, rules=())
    add_table(data, "samples", {p: told_apart(data, p) for p in data.parts("samples")}, ("urls",))
    score(data, [scorer(kind, tmp_path)])
    path = folder(tmp_path / "set", {f"{n:02d}.jpg": i.image or b"" for n, i in enumerate(shown)})
    knobs = {"embeddings": "tiny", "min_similarity": -0.9}
    decontaminate(data, [evaluation(path, **knobs)])
    told = {m["uid"]: m for m in whole(data, "matches_test")}
    right = [told[i.uid]["item"] == f"{n:02d}.jpg" for n, i in enumerate(shown)]
    assert np.mean(right) >= 0.8
    assert {m["method"] for m in told.values()} == {"embedding"}
    cut_at = float(np.median([m["distance"] for m in told.values()]))
    near = EvaluationItems(name="near", path=path, embeddings="tiny", min_similarity=1 - cut_at)
    decontaminate(data, [near])
    fewer = {m["uid"]: m for m in whole(data, "matches_near")}
    assert 0 < len(fewer) < len(told)
    assert all(told[uid] == m and m["distance"] <= cut_at + 1e-6 for uid, m in fewer.items())


def told_apart(data: Dataset, part: int) -> pa.Table:
    """Samples with hashes of their bytes: the folds of the bootstrap scorer go by them."""
    rows = data.read("samples", part)
    return rows.set_column(rows.column_names.index("sha256"), "sha256", rows["uid"])


def scorer(kind: str, folder: Path) -> ClipScorer | BootstrapScorer:
    if kind == "clip":
        return ClipScorer(name="tiny", model=str(tiny_clip(folder / "clip")))
    return BootstrapScorer(name="tiny", steps=2, layers=1, text_layers=1)


def test_embeddings_that_cannot_be_had_are_refused(tmp_path):
    """A table that is not there, one without image_emb, one of a scorer without a model."""
    rows = [Row("u", phash=None, scores={"s": {"clip_score": 0.3}, "e": {"image_emb": [1.0, 0.0]}})]
    data = pool(tmp_path / "pool", rows)
    path = originals(tmp_path / "set", 1)
    for name, message in {
        "lacks": "has no table 'scores_lacks'",
        "s": "scores_s has no image_emb",
        "e": "cannot be embedded as scores_e has them",
    }.items():
        with pytest.raises(ValueError, match=message):
            decontaminate(data, [evaluation(path, embeddings=name)])
