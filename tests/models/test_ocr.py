import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.ocr import DETECTOR, MAX_ASPECT, Ocr, _params, letters, seen_size
from models.text_boxes import covered
from schemas.configs import TmarsScorer
from tests.written import SIDE, WORDS, noise, write


@pytest.fixture(scope="module")
def reader():
    return Ocr(TmarsScorer(recognise=True))


@pytest.fixture(scope="module")
def finder():
    """Without reading all."""
    return Ocr(TmarsScorer())


def share_found(ocr, size, angle, seed):
    """Share of a rendered text's ink that is in boxes."""
    image, ink = write(noise(seed), WORDS[seed % len(WORDS)], size, angle)
    boxes, _ = ocr(image)
    return covered(boxes, SIDE, SIDE)[ink].mean()


@pytest.mark.parametrize("size", [10, 12, 16, 24, 32])
def test_text_is_found_at_every_size(finder, size: int):
    """On noise as uneven as a photo, boxes cover nine tenths of each text's ink."""
    assert [share_found(finder, size, 0, seed) > 0.9 for seed in range(6)] == [True] * 6


@pytest.mark.parametrize("angle", [-45, -20, 10, 45, 90, 180])
def test_turned_text_is_found(finder, angle: int):
    """At any angle, upright boxes or not."""
    assert [share_found(finder, 20, angle, seed) > 0.9 for seed in range(4)] == [True] * 4


def test_text_at_the_border_is_found(finder):
    """In each corner of the image, with boxes that stay inside of it."""
    for at in ((60, 12), (196, 12), (60, 243), (196, 243)):
        image, ink = write(noise(1), "free shipping", 18, at=at)
        boxes, _ = finder(image)
        assert covered(boxes, SIDE, SIDE)[ink].mean() > 0.9
        assert boxes.min() >= 0
        assert boxes.max() <= SIDE - 1


def drawing(seed: int) -> np.ndarray:
    """Discs, blocks and triangles on plain ground: things, and no text."""
    draw = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE, 3), draw.integers(150, 256, 3), np.uint8)
    for _ in range(3):
        x, y, r = (int(v) for v in draw.integers(50, 200, 3))
        colour = [int(v) for v in draw.integers(0, 200, 3)]
        shape = draw.integers(3)
        if shape == 0:
            cv2.circle(image, (x, y), r // 3, colour, -1)
        elif shape == 1:
            cv2.rectangle(image, (x - r // 4, y - r // 3), (x + r // 3, y + r // 4), colour, -1)
        else:
            corners = np.array(
                [[x, y - r // 3], [x - r // 3, y + r // 4], [x + r // 3, y + r // 4]]
            )
            cv2.fillPoly(image, [corners], colour)
    return image


def test_drawings_without_text_have_no_boxes(finder):
    """Things are not covered, nor is noise, which the detector alone would do."""
    images = [drawing(seed) for seed in range(12)] + [noise(seed) for seed in range(12)]
    assert [len(finder(image)[0]) for image in images] == [0] * len(images)
    trusting = Ocr(TmarsScorer(min_letters=0))
    assert any(len(trusting(image)[0]) for image in images)


def test_what_is_written_is_read(reader):
    """Line by line, on noise; short words too."""
    image, _ = write(noise(3), "winter coat", 24, at=(128, 60))
    image, _ = write(image, "UK", 32, at=(128, 190))
    boxes, lines = reader(image)
    assert len(boxes) == 2
    assert lines == ["winter coat", "UK"]


def test_reading_all_changes_no_box(finder, reader):
    """`recognise` costs time and adds lines; the boxes are the same."""
    for seed in range(4):
        image, _ = write(noise(seed), WORDS[seed], 22, angle=5 * seed)
        boxes, lines = reader(image)
        assert np.array_equal(boxes, finder(image)[0])
        assert lines


def test_at_most_so_many_boxes_are_read():
    """The largest ones; the others stay text."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for at, size in ((40, 14), (100, 30), (180, 20)):
        image, _ = write(image, f"winter {size}", size, at=(128, at))
    boxes, lines = Ocr(TmarsScorer(recognise=True, max_lines=1))(image)
    assert len(boxes) == 3
    assert lines == ["winter 30"]


def test_many_threads_read_alike(reader):
    """It is called by the threads that decode, at once."""
    images = [write(noise(seed), WORDS[seed], 20)[0] for seed in range(6)]
    alone = [reader(image) for image in images]
    with ThreadPoolExecutor(3) as threads:
        for (boxes, lines), (own, read) in zip(threads.map(reader, images), alone, strict=True):
            assert np.array_equal(boxes, own)
            assert lines == read


def test_images_of_any_shape_are_looked_at(finder):
    """One pixel, a line, a column, a large image: no text, and no huge copy for the detector."""
    for shape in ((1, 1), (1, 5000), (3000, 2), (31, 33), (700, 900)):
        assert len(finder(np.full((*shape, 3), 200, np.uint8))[0]) == 0


def test_the_detector_sees_multiples_of_32_and_no_more_than_asked():
    """Smaller images as they are, larger ones at `side`, long ones smaller still."""
    assert seen_size(256, 256, 512) == (256, 256)
    assert seen_size(1024, 2048, 512) == (512, 1024)
    assert seen_size(1, 1, 512) == (32, 32)
    assert seen_size(1, 100_000, 512) == (32, 512 * MAX_ASPECT)


def test_letters_are_counted_by_how_likely_they_are():
    """Signs and spaces are none."""
    assert letters("a -%b", 0.5) == 1
    assert letters("", 0) == 0


def test_weights_that_are_not_there_are_not_fetched(tmp_path: Path):
    """A package without the models is one clear line."""
    with pytest.raises(ValueError, match=rf"has no {DETECTOR} .*install rapidocr") as found:
        _params(tmp_path, 0.5)
    assert "\n" not in str(found.value)


QUIET = """
import json, logging, os, socket, threading
def refuse(*_): raise AssertionError("the network was touched")
socket.socket.connect = refuse
import numpy as np
from models.ocr import Ocr
from schemas.configs import TmarsScorer
ocr = Ocr(TmarsScorer(recognise=True))
before = len(os.listdir("/proc/self/task"))
ocr(np.zeros((256, 256, 3), np.uint8))
engine = ocr.engine.text_det.session.session.get_session_options()
threads = [engine.intra_op_num_threads, engine.inter_op_num_threads]
print(json.dumps([threads, len(os.listdir("/proc/self/task")) - before,
                  logging.getLogger().level]))
"""


def test_it_is_quiet_needs_no_network_and_starts_no_threads():
    """In a process of its own: nothing on either stream, one thread per session."""
    ran = subprocess.run(
        [sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=120, check=True
    )
    threads, more, level = json.loads(ran.stdout)
    assert (threads, more, level, ran.stderr) == ([1, 1], 0, 30, "")
