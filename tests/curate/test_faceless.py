"""Exports without faces: what is blurred, what stays to the byte, and what is refused."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.export import export
from curate.pictures.blur import hidden
from curate.score import score
from schemas.configs import CurationConfig, ExportConfig, FacesScorer
from tests.photos import FACE, face_box, photo
from tests.pools import add_subset
from tests.stored import BROKEN, Stored, stored

CONFIG = ExportConfig(subset="all", shard_rows=2, blur_faces="faces")
KINDS = ("jpg", "png", "webp")


def encoded(rgb: np.ndarray, kind: str = "jpg") -> bytes:
    return bytes(cv2.imencode(f".{kind}", rgb[..., ::-1])[1])


def decoded(image: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


FACES = {k: Stored(f"http://a/face.{k}", f"a {k}", encoded(photo("astronaut"), k)) for k in KINDS}
EMPTY = [Stored(f"http://a/{n}.jpg", n, encoded(photo(n))) for n in ("brick", "grass", "coins")]
PAIRS = [*FACES.values(), *EMPTY]
BAD = Stored("http://a/broken.jpg", "broken", BROKEN)


def dataset(root: Path, pairs: list[Stored], parts: int = 2):
    """Scored for faces, with a subset of all."""
    data = stored(root, pairs, parts)
    add_subset(data, "all", pairs)  # type: ignore[arg-type]
    score(data, [FacesScorer()])
    return data


def members(folder: str) -> dict[str, bytes]:
    found = {}
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {m.name: tar.extractfile(m).read() for m in tar}
    return found


def sharpness(rgb: np.ndarray) -> float:
    """Of what is in the astronaut's face box."""
    left, top, right, bottom = (side // 2 for side in FACE)
    grey = cv2.cvtColor(np.ascontiguousarray(rgb[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> str:
    return export(dataset(tmp_path_factory.mktemp("root"), PAIRS), CONFIG)


@pytest.mark.parametrize("kind", KINDS)
def test_faces_are_blurred_in_the_images_own_format(exported: str, kind: str):
    """What is in the box is smooth, what is far from it stays, and the member keeps its suffix."""
    pair = FACES[kind]
    found = members(exported)[f"{pair.uid}.{kind}"]
    before, after = decoded(pair.image), decoded(found)
    assert before.shape == after.shape
    assert sharpness(after) < sharpness(before) / 20
    assert np.abs(before[180:].astype(int) - after[180:]).mean() < (0.1 if kind == "png" else 4)


@pytest.mark.parametrize("pair", EMPTY, ids=lambda p: p.caption)
def test_images_without_faces_stay_as_they_are(exported: str, pair: Stored):
    """Byte for byte."""
    assert members(exported)[f"{pair.uid}.jpg"] == pair.image


def test_the_json_and_the_sidecar_say_what_was_done(exported: str):
    """The number of blurred faces; the boxes are not handed on."""
    found = members(exported)
    sidecar = [r for p in Path(exported).glob("*.parquet") for r in pq.read_table(p).to_pylist()]
    by_uid = {row["uid"]: row["faces_blurred"] for row in sidecar}
    for pair in PAIRS:
        record = json.loads(found[f"{pair.uid}.json"])
        assert record["faces_blurred"] == by_uid[pair.uid] == int(pair in FACES.values())
        assert "face_boxes" not in record


def test_a_killed_export_goes_on_to_the_same_bytes(tmp_path: Path):
    """Shards that are written again, here or from other parts, are the same."""
    data = dataset(tmp_path / "one", PAIRS)
    out = Path(export(data, CONFIG))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for name in ("00000000.tar", "00000001.tar", "00000002.tar", "sizes.json"):
        (out / name).unlink()
    export(data, CONFIG)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    other = Path(export(dataset(tmp_path / "other", PAIRS, parts=3), CONFIG))
    del before[".curate"]
    assert {p.name: p.read_bytes() for p in other.iterdir() if p.name != ".curate"} == before


def test_another_wish_writes_the_shards_anew(tmp_path: Path):
    """With and without blurring are two states of a folder; without it nothing speaks of faces."""
    data = dataset(tmp_path, PAIRS)
    out = export(data, CONFIG)
    export(data, ExportConfig(subset="all", shard_rows=2))
    found = members(out)
    for kind, pair in FACES.items():
        assert found[f"{pair.uid}.{kind}"] == pair.image
    assert not any(b"faces_blurred" in body for name, body in found.items() if "json" in name)


def test_images_that_nobody_has_looked_at_are_refused(tmp_path: Path):
    """The error counts them by the reason, says what can be done, and nothing is written."""
    late = Stored("http://a/late.jpg", "late", encoded(photo("astronaut")))
    data = dataset(tmp_path, [*PAIRS, BAD])
    add_subset(data, "all", [*PAIRS, BAD, late])  # type: ignore[arg-type]
    clear = (
        r"subset 'all': 2 of its pairs have no face boxes in scores_faces \(1 not scored, "
        r"1 undecodable image\); .*`unknown_faces: keep`"
    )
    with pytest.raises(ValueError, match=clear):
        export(data, CONFIG)
    assert not list(tmp_path.rglob("*/exports/*/*.tar"))


def test_they_are_written_as_they_are_where_the_config_says_so(tmp_path: Path):
    """Unknown is null, not 0, and the others are still blurred."""
    data = dataset(tmp_path, [*PAIRS, BAD])
    found = members(export(data, CONFIG.model_copy(update={"unknown_faces": "keep"})))
    assert json.loads(found[f"{BAD.uid}.json"])["faces_blurred"] is None
    assert found[f"{BAD.uid}.jpg"] == BROKEN
    assert found[f"{FACES['jpg'].uid}.jpg"] != FACES["jpg"].image


def test_without_the_scores_nothing_is_written(tmp_path: Path):
    """The table that is not there is named."""
    data = stored(tmp_path, PAIRS)
    add_subset(data, "all", PAIRS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no table 'scores_faces'"):
        export(data, CONFIG)


def test_a_recipe_must_have_the_scorer():
    """Found before anything is downloaded, as any other name."""
    recipe = {"root": "r", "selectors": [{"kind": "all", "name": "all"}]}
    exports = [{"subset": "all", "blur_faces": "faces"}]
    with pytest.raises(ValueError, match=r"exports.blur_faces: 'faces' is not among the scorers"):
        CurationConfig.model_validate(recipe | {"exports": exports})
    scorers = [{"kind": "faces"}]
    CurationConfig.model_validate(recipe | {"exports": exports, "scorers": scorers})


def test_alpha_and_grey_are_hidden_too():
    """What an alpha channel covers goes, and a grey image stays of its size."""
    rgb = photo("astronaut")
    rgba = np.dstack([rgb[..., ::-1], np.zeros(rgb.shape[:2], np.uint8)])
    clear = hidden(bytes(cv2.imencode(".png", rgba)[1]), [face_box()], "png", 95)
    assert decoded(clear).min() >= 254
    grey = encoded(np.repeat(rgb.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2))
    assert sharpness(decoded(hidden(grey, [face_box()], "jpg", 95))) < sharpness(rgb) / 20


def test_the_quality_is_the_configs():
    """Fewer bytes at 30 than at 95."""
    image = FACES["jpg"].image
    small, large = (hidden(image, [face_box()], "jpg", q) for q in (30, 95))
    assert len(small) < len(large) / 2
    assert hashlib.sha256(small).digest() != hashlib.sha256(large).digest()


def test_what_cannot_be_decoded_is_an_error():
    """Broken bytes are never passed on as blurred."""
    with pytest.raises(ValueError, match="undecodable image"):
        hidden(BROKEN, [face_box()], "jpg", 95)
