import hashlib

import cv2
import numpy as np
import pytest

from models.scorers.image_stats import ImageStats, pixel_stats
from schemas.configs import ImageStatsScorer
from schemas.tables import SCORES


@pytest.fixture
def scorer():
    return ImageStats(ImageStatsScorer())


def plain_stats(rgb):
    """The same numbers by NumPy from their definitions, for an image of equal channels."""
    grey = rgb[..., 0].astype(float)
    share = np.array([np.mean(grey == level) for level in range(256)])
    padded = np.pad(grey, 1, mode="reflect")
    edges = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    return {
        "entropy": -sum(p * np.log2(p) for p in share if p > 0),
        "sharpness": edges.var(),
        "brightness": grey.mean(),
    }


def test_stats_equal_their_definitions(noise):
    """Entropy, sharpness and brightness of noise are those of the plain formulas."""
    rgb = np.repeat(noise(0, 33, 21, 1), 3, axis=2)
    stats = pixel_stats(rgb)
    for name, value in plain_stats(rgb).items():
        assert stats[name] == pytest.approx(value, rel=1e-4), name


def test_a_flat_image_has_no_entropy_and_no_edges():
    """One colour has entropy 0, sharpness 0 and that colour as its mean."""
    stats = pixel_stats(np.full((5, 4, 3), (10, 20, 30), np.uint8))
    assert (stats["entropy"], stats["sharpness"]) == (0, 0)
    assert (stats["mean_r"], stats["mean_g"], stats["mean_b"]) == (10, 20, 30)


def test_transparency_is_the_share_of_pixels_that_are_not_opaque():
    """Clear and half-clear pixels count, and are seen over white."""
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255, 255]
    stats = pixel_stats(rgba)
    assert stats["transparency"] == 0.5
    assert stats["brightness"] == pytest.approx((255 + 127) / 4)


def test_sizes_are_the_originals_where_known(scorer, batch_of, noise):
    """Width and height come from the samples table, and from the pixels where it is silent."""
    batch = batch_of(
        ["a", "b"],
        [noise(0, 10, 20), noise(1, 10, 20)],
        samples__original_width=[300, None],
        samples__original_height=[600, None],
    )
    columns = scorer(batch)
    assert columns["width"] == [300, 20]
    assert columns["height"] == [600, 10]
    assert columns["aspect_ratio"] == [2, 2]


def test_the_quality_is_the_originals_or_none(scorer, batch_of, noise):
    """Known of a JPEG whose bytes are those that came; not of one that we encoded, not of a PNG,
    not where no one wrote down what came."""
    jpeg = cv2.imencode(".jpg", noise(0), [cv2.IMWRITE_JPEG_QUALITY, 63])[1].tobytes()
    png = cv2.imencode(".png", noise(0))[1].tobytes()
    came = hashlib.sha256(jpeg).hexdigest()
    batch = batch_of(
        ["a"] * 4,
        [noise(0)] * 4,
        image_stats__peeked=[scorer.peek(f) for f in (jpeg, jpeg, png, jpeg)],
        samples__sha256=[came, "0" * 64, hashlib.sha256(png).hexdigest(), None],
    )
    assert scorer(batch)["jpeg_quality"] == [63, None, None, None]


def test_a_missing_image_costs_its_row(scorer, batch_of, noise):
    """A row without pixels has its error and nulls; the others are scored."""
    columns = scorer(batch_of(["a", "b"], [None, noise(0)]))
    assert columns["error"] == ["undecodable image", None]
    for name in SCORES["image_stats"].names:
        assert columns[name][0] is None
        assert (columns[name][1] is not None) == (name != "jpeg_quality")


def test_captions_never_change_image_stats(scorer, batch_of, noise):
    """Other captions, or none, give the same columns."""
    images = [noise(i, channels=3 + i % 2) for i in range(4)]
    assert scorer(batch_of(["a", "b", "c", None], images)) == scorer(batch_of([None] * 4, images))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 4), (1, 5000, 3), (2, 1, 4)])
def test_extreme_shapes_are_scored(scorer, batch_of, shape):
    """A single pixel and a single row have finite stats."""
    columns = scorer(batch_of(["a"], [np.zeros(shape, np.uint8)]))
    assert columns["error"] == [None]
    finite = [name for name in SCORES["image_stats"].names if name != "jpeg_quality"]
    assert all(np.isfinite(columns[name][0]) for name in finite)


def test_an_empty_batch_has_all_columns(scorer, batch_of):
    """No rows in, no rows out."""
    columns = scorer(batch_of([], []))
    assert set(columns) == {*SCORES["image_stats"].names, "error"}
    assert not any(columns.values())
