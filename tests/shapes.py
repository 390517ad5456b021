"""Pictures of one coloured shape each, with captions that say which: what a captioner can learn in
seconds.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from schemas.configs import CodebookCaptioner
from schemas.tables import draw

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "black": (0, 0, 0)}
SHAPES = ("disc", "square", "bar")
TINY = CodebookCaptioner.model_validate(
    {
        "encoder": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "kind": "vit"},
        "codes": 8,
        "dim": 16,
        "heads": 2,
        "layers": 1,
        "vocabulary": 32,
        "context_length": 8,
        "steps": 6,
        "train_batch_size": 4,
        "warmup": 1,
        "shift": 1,
        "validation": 0.2,
        "checkpoint_every": 2,
        "log_every": 2,
        "revive_after": 2,
        "max_new_tokens": 5,
    }
)


def picture(number: int, side: int = 32) -> tuple[np.ndarray[Any, Any], str]:
    """uint8 (side, side, 3) and "a red disc on the left" or so; another one for every number."""

    def pick(of: str, options: Any) -> Any:
        return list(options)[int(draw(number, of) * len(options))]

    colour, shape, where = pick("c", COLOURS), pick("s", SHAPES), pick("w", ("left", "right"))
    pixels = np.full((side, side, 3), 245, np.uint8)
    x = side // 4 if where == "left" else 3 * side // 4
    y = side // 4 + int(draw(number, "y") * side / 2)
    r, rgb = side // 6, COLOURS[colour]
    if shape == "disc":
        cv2.circle(pixels, (x, y), r, rgb, -1)
    else:
        tall = r // 3 if shape == "bar" else r
        cv2.rectangle(pixels, (x - r, y - tall), (x + r, y + tall), rgb, -1)
    return pixels, f"a {colour} {shape} on the {where}"


def pictures(count: int, start: int = 0, side: int = 32) -> tuple[np.ndarray[Any, Any], list[str]]:
    """uint8 (count, side, side, 3) and their captions."""
    made = [picture(i, side) for i in range(start, start + count)]
    return np.stack([pixels for pixels, _ in made]), [caption for _, caption in made]
