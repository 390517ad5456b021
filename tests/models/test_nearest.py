import numpy as np
import pytest

from models import nearest
from models.nearest import Nearest


def unit(n, d, seed):
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (700, 50), (40, 1000)])
def test_the_nearest_are_numpys(monkeypatch, n, k):
    """Place and product of the largest inner product, however many points are held at once."""
    rows, points = unit(n, 16, 0), unit(k, 16, 1)
    products = rows.astype(np.float64) @ points.astype(np.float64).T
    for size in (7, 64, 10_000):
        monkeypatch.setattr(nearest, "POINTS", size)
        places, best = Nearest(points)(rows)
        assert places.tolist() == products.argmax(axis=1).tolist()
        assert best == pytest.approx(products.max(axis=1), abs=1e-5)


def test_what_stands_beside_a_row_changes_no_bit():
    """Any split of the rows gives the same places and the same products."""
    rows, points = unit(60, 24, 2), unit(200, 24, 3)
    find = Nearest(points)
    whole = find(rows)
    for cut in (1, 13, 59):
        parts = [find(rows[:cut]), find(rows[cut:])]
        for side in (0, 1):
            assert np.array_equal(np.concatenate([p[side] for p in parts]), whole[side])


@pytest.mark.parametrize("size", [1, 2, 10])
def test_of_equal_points_the_first_is_named(monkeypatch, size):
    """Ties go to the lower number, within a block of points and between them."""
    monkeypatch.setattr(nearest, "POINTS", size)
    points = np.eye(2, dtype=np.float32)[[1, 0, 0, 1, 0]]
    assert Nearest(points)(np.eye(2, dtype=np.float32))[0].tolist() == [1, 0]


def test_no_rows_have_no_nearest():
    """Nothing in, nothing out."""
    places, products = Nearest(unit(3, 4, 0))(np.empty((0, 4), np.float32))
    assert len(places) == len(products) == 0


@pytest.mark.parametrize("size", [7, 64, 10_000])
def test_a_point_that_is_left_out_is_never_the_nearest(monkeypatch, size):
    """Each row has its own such point, or none; where no other is left the product is -inf."""
    monkeypatch.setattr(nearest, "POINTS", size)
    points = unit(200, 16, 4)
    but = np.where(np.arange(200) % 3 == 0, -1, np.arange(200))
    products = points.astype(np.float64) @ points.astype(np.float64).T
    products[but >= 0, but[but >= 0]] = -np.inf
    places, best = Nearest(points)(points, but)
    assert places.tolist() == products.argmax(axis=1).tolist()
    assert best == pytest.approx(products.max(axis=1), abs=1e-5)
    assert Nearest(points[:1])(points[:1], np.array([0]))[1].tolist() == [-np.inf]
