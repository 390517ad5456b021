import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from curate.reporting.curves import curves_svg, samples_svg
from tests.gallery import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


def rows(count: int = 5) -> list[dict[str, float]]:
    return [
        {
            "step": 10 * i,
            "train": 4 / i,
            "validation": 4.5 / i,
            "perplexity": 2.0 * i,
            "codes_in_use": i / 10,
        }
        for i in range(1, count + 1)
    ]


def test_every_known_value_has_a_curve():
    """One line per value that was logged, each in its panel, falling where the value falls."""
    root = ET.fromstring(str(curves_svg(rows())))
    curves = [p.get("points").split() for p in root.iter(f"{SVG}polyline")]
    curves = [[tuple(map(float, point.split(","))) for point in c] for c in curves if len(c) == 5]
    assert len(curves) == 4
    train, validation, perplexity, used = curves
    for falling in (train, validation):
        assert all(a[1] < b[1] for a, b in pairwise(falling))
    for rising in (perplexity, used):
        assert all(a[1] > b[1] for a, b in pairwise(rising))
    assert train[-1][0] < perplexity[0][0] < perplexity[-1][0] < used[0][0]
    texts = {t.text for t in root.iter(f"{SVG}text")}
    assert {"train", "validation", "perplexity", "codes_in_use"} <= texts
    assert "mean_image" not in texts


@pytest.mark.parametrize("found", [[], rows(1), [{"step": 3, "train": float("nan")}]])
def test_short_logs_are_drawn(found):
    """Nothing yet, one line, a value that is no number: still a picture without one."""
    page = str(curves_svg(found))
    ET.fromstring(page)
    assert "nan" not in page


def test_samples_show_image_and_both_captions():
    """Hostile captions are text, cut where they are long; the image is its pixels as PNG."""
    images = np.random.default_rng(0).integers(0, 256, (len(HOSTILE), 8, 8, 3), np.uint8)
    page = str(samples_svg(images, HOSTILE, ["x" * 999] * len(HOSTILE)))
    root = ET.fromstring(page)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert texts[0] == HOSTILE[0]
    assert len(texts) == 2 * len(HOSTILE)
    assert len(texts[1]) < 100
    assert {e.tag for e in root.iter()} == {f"{SVG}{n}" for n in ("svg", "rect", "image", "text")}
    links = [e.get("href") for e in root.iter(f"{SVG}image")]
    assert len(set(links)) == len(HOSTILE)
    assert all(link.startswith("data:image/png;base64,") for link in links)
