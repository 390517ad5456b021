import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text_boxes import covered, filled, sides

HEIGHT, WIDTH = 24, 30


def box(left, top, right, bottom):
    """An upright box, its edges inside."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def boxes_of(*upright):
    return np.array([box(*b) for b in upright], np.float32).reshape(-1, 4, 2)


def plain_filled(image, upright, ring):
    """`filled` pixel by pixel, for upright boxes."""
    height, width = image.shape[:2]
    points = [(y, x) for y in range(height) for x in range(width)]

    def inside(y, x, b, grown=0):
        return b[0] - grown <= x <= b[2] + grown and b[1] - grown <= y <= b[3] + grown

    clear = [p for p in points if not any(inside(*p, b) for b in upright)]
    result = image.copy()
    for b in upright:
        own = [p for p in points if inside(*p, b)]
        near = [p for p in clear if inside(*p, b, ring)]
        chosen = near if own and near else clear or points
        colour = np.mean([image[p] for p in chosen], axis=0)
        for p in own:
            result[p] = np.rint(colour)
    return result


@st.composite
def upright(draw):
    left, right = sorted(draw(st.tuples(*[st.integers(-4, WIDTH + 3)] * 2)))
    top, bottom = sorted(draw(st.tuples(*[st.integers(-4, HEIGHT + 3)] * 2)))
    return left, top, right, bottom


@settings(max_examples=60, deadline=None)
@given(some=st.lists(upright(), max_size=5), ring=st.integers(1, 6), seed=st.integers(0, 9))
def test_random_boxes_are_filled_as_the_plain_loop_fills_them(some, ring, seed):
    """Overlapping, at and across the border, outside: pixel by pixel the same, to rounding."""
    image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    found = filled(image, boxes_of(*some), ring).astype(int)
    assert np.abs(found - plain_filled(image, some, ring)).max() <= 1
    outside = covered(boxes_of(*some), HEIGHT, WIDTH) == 0
    assert np.array_equal(found[outside], image[outside])


def test_a_box_takes_the_colour_around_it():
    """Black letters on half red, half blue: each box becomes its own ground."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :15], image[:, 15:] = (200, 0, 0), (0, 0, 200)
    ground = image.copy()
    image[5:9, 4:9] = image[5:9, 20:26] = 0
    assert np.array_equal(filled(image, boxes_of((4, 5, 8, 8), (20, 5, 25, 8)), 2), ground)


def test_letters_of_a_neighbour_do_not_tint_a_box():
    """Two boxes side by side on white stay white, though each is in the other's ring."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    image[5:9, 4:20] = 0
    found = filled(image, boxes_of((4, 5, 11, 8), (12, 5, 19, 8)), 3)
    assert (found == 255).all()


def test_a_box_over_the_whole_image_leaves_its_mean():
    """With nothing around it, no pixel keeps what was written."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2] = (100, 200, 50)
    for some in [(0, 0, WIDTH - 1, HEIGHT - 1)], [(0, 0, WIDTH, 12), (0, 12, WIDTH, HEIGHT)]:
        assert (filled(image, boxes_of(*some), 3) == (50, 100, 25)).all()


def test_a_box_outside_of_the_image_changes_nothing():
    """On any side of it, and far away."""
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for x, y in ((-9, 3), (3, -9), (WIDTH, 3), (3, HEIGHT), (10**6, -(10**6)), (-1, -1)):
        assert np.array_equal(filled(image, boxes_of((x, y, x, y)), 2), image)


def test_a_box_inside_of_others_takes_what_is_clear():
    """A box whose ring is all text gets the mean of the pixels in no box."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[4:20, 4:20] = 0
    assert (filled(image, boxes_of((4, 4, 19, 19), (10, 10, 12, 12)), 2) == 90).all()


def test_a_turned_box_covers_its_own_area():
    """A square on its tip covers half of the square around it, and only that changes."""
    tip = np.array([[[15, 2], [25, 12], [15, 22], [5, 12]]], np.float32)
    mask = covered(tip, HEIGHT, WIDTH)
    assert mask.sum() == 221  # 11 * 11 + 10 * 10
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    found = filled(image, tip, 2)
    assert np.array_equal((found != image).any(axis=2), mask > 0)
    assert len(np.unique(found[mask > 0], axis=0)) == 1
    assert [side.tolist() for side in sides(tip)] == [pytest.approx([14.14], abs=0.01)] * 2


def test_no_boxes_change_nothing():
    """The image is a copy, the mask empty, whatever the size."""
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 3), np.uint8)
    none = np.empty((0, 4, 2), np.float32)
    found = filled(image, none, 3)
    assert np.array_equal(found, image)
    assert found is not image
    assert covered(none, 1, 1).sum() == 0
    assert covered(boxes_of((0, 0, 9, 4), (5, 0, 9, 9)), 10, 10).sum() == 75
