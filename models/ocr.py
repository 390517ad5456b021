"""Text in images by RapidOCR: PaddleOCR's small models (PP-OCRv6), whose weights are in its wheel.

Both run by onnxruntime on the CPU, in the thread that calls: many threads may call at once. Cost on
one core: 23 ms to look for text in 256 x 256 pixels, 6.4 CPU hours per million images, and 92 ms in
512 x 512, 26 hours; 26 ms to read a box, 7 hours per million boxes.

The detector takes a single thing on plain ground for a letter: it boxed 197 of 250 OpenMoji
drawings. So a box that is not long like a line is read, and is text where letters come out; with
that rule it boxed 4, of which 3 have letters. What is lost by it are single letters, and short
words in scripts that the reader does not know: it knows Latin and Chinese, Japanese and some Greek.
Upside-down and vertical lines are found, and read badly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Image
from models.text_boxes import Boxes, sides
from schemas.configs import TmarsScorer

DETECTOR, READER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
TILE = 32  # pixels: the detector takes multiples of it
MAX_ASPECT = 4  # a longer image is made smaller still, else 1 x 10 000 would be huge
LONG = 3  # times as long as high: a line; the boxes on drawings reach 2.5
MIN_LINE = 4  # pixels: a lower box is not read
MIN_SCORE = 0.5  # mean probability of a line's characters, RapidOCR's


class Ocr:
    """Finds text and reads it. Raises ValueError where the installed package has no such weights;
    none are fetched.
    """

    def __init__(self, config: TmarsScorer) -> None:
        import rapidocr

        self.config = config
        folder = Path(rapidocr.__file__).parent / "models"
        self.engine = rapidocr.RapidOCR(params=_params(folder, config.box_threshold))
        blank = np.zeros((TILE, TILE, 3), np.uint8)
        self.engine(blank)  # weights are loaded at the first call
        if config.recognise or config.min_letters:
            self.engine.recognize_txt([blank])

    def __call__(self, image: Image) -> tuple[Boxes, list[str]]:
        """Where text is in an RGB image, from top to bottom, and the lines that were read."""
        boxes = self._found(image)
        long, high = sides(boxes)
        doubtful = (long < LONG * high) & (self.config.min_letters > 0)
        wanted = (doubtful | self.config.recognise) & (high >= MIN_LINE)
        order = np.argsort(-long * high, kind="stable")
        read = self._read(image, boxes, [at for at in order if wanted[at]][: self.config.max_lines])
        kept = [
            at
            for at in range(len(boxes))
            if not (doubtful[at] and at in read and letters(*read[at]) < self.config.min_letters)
        ]
        lines = [read[at][0] for at in kept if at in read and read[at][1] >= MIN_SCORE]
        return boxes[kept], lines

    def _found(self, image: Image) -> Boxes:
        """All that the detector takes for text."""
        import cv2

        height, width = image.shape[:2]
        rows, columns = seen_size(height, width, self.config.side)
        how = cv2.INTER_AREA if rows < height else cv2.INTER_LINEAR
        small = cv2.resize(image, (columns, rows), interpolation=how)
        found = self.engine(np.ascontiguousarray(small[..., ::-1])).boxes
        if found is None:
            return np.empty((0, 4, 2), np.float32)
        scaled: Boxes = np.asarray(found, np.float32) * (width / columns, height / rows)
        return np.clip(scaled, 0, (width - 1, height - 1)).astype(np.float32)

    def _read(
        self, image: Image, boxes: Boxes, chosen: Sequence[int]
    ) -> dict[int, tuple[str, float]]:
        """By place of these boxes: the text in it and the mean probability of its characters."""
        if not chosen:
            return {}
        bgr = np.ascontiguousarray(image[..., ::-1])
        found = self.engine.recognize_txt(self.engine.crop_text_regions(bgr, boxes[chosen]))
        return dict(zip(chosen, zip(found.txts, found.scores, strict=True), strict=True))


def letters(text: str, score: float) -> float:
    """How many letters and digits of a line are likely to be there."""
    return score * sum(map(str.isalnum, text))


def seen_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns that the detector sees an image at: multiples of TILE, the shorter side
    at most `side` and the longer one MAX_ASPECT times that. Nothing is enlarged: letters are found
    in noise that is stretched.
    """
    shorter, longer = min(height, width), max(height, width)
    scale = min(1, side / shorter, MAX_ASPECT * side / longer)
    rows, columns = (max(1, round(n * scale / TILE)) * TILE for n in (height, width))
    return rows, columns


def _params(folder: Path, threshold: float) -> dict[str, Any]:
    """All that decides a result, so that another version's defaults do not."""
    for name in (DETECTOR, READER):
        if not (folder / name).is_file():
            raise ValueError(
                f"text detection: the installed rapidocr has no {name} in {folder}; install "
                "rapidocr 3.10, whose wheel has it"
            )
    return {
        "Global.log_level": "critical",  # else a line for each image without text
        "Global.use_cls": False,
        "Global.use_rec": False,
        "Global.use_preprocess_img": False,  # sizes are seen_size's
        "Global.use_vertical_padding": False,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Det.model_path": str(folder / DETECTOR),
        "Det.limit_type": "min",
        "Det.limit_side_len": TILE,
        "Det.thresh": 0.3,
        "Det.box_thresh": threshold,
        "Det.max_candidates": 1000,
        "Det.unclip_ratio": 1.6,
        "Det.use_dilation": True,
        "Det.score_mode": "fast",
        "Rec.model_path": str(folder / READER),
    }
