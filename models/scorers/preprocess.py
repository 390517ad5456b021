"""An open_clip image transform in two halves: pixels in threads ahead of the model, floats on its
device.

The first half is the transform's own resize and crop by Pillow, which lets other threads run, and
its values are open_clip's to the bit; it leaves uint8, a quarter of the floats. It takes 1.2 ms per
photo of 256 x 256. torchvision's v2 on uint8 tensors takes 0.3 and is off by up to two grey levels
in one value of 400; OpenCV's bicubic has no antialiasing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.base import Image
from models.decode import over_white
from models.scorers.pairs import one_line

if TYPE_CHECKING:
    from torch import Tensor

MAX_ASPECT = 16  # beyond it the centre is cut out: else 1 x 10 000 would grow to 224 x 2 240 000
FAULTS = (ValueError, TypeError, OSError, ZeroDivisionError)  # of Pillow, for pixels it refuses


class Preprocess:
    """The inference transform of `load_pretrained`: steps on pictures, to tensor, normalise."""

    def __init__(self, transform: Any, resize_mode: str) -> None:
        import torch

        *self.steps, _, normalise = transform.transforms
        self.mean = torch.tensor(normalise.mean).reshape(1, -1, 1, 1)
        self.std = torch.tensor(normalise.std).reshape(1, -1, 1, 1)
        self.cuts = resize_mode == "shortest"  # what sticks out is cut off

    def __call__(self, image: Image) -> Image | str:
        """uint8 (height, width, 3) at the model's size, or why there is none. Of any thread."""
        from PIL.Image import fromarray

        try:
            picture = fromarray(over_white(centre(image) if self.cuts else image))
            for step in self.steps:
                picture = step(picture)
        except FAULTS as error:
            return f"image not prepared: {one_line(error)}"
        return np.asarray(picture)

    def floats(self, pixels: Sequence[Image], device: Any, dtype: Any = None) -> Tensor:
        """What the model sees: (n, 3, height, width)."""
        import torch

        stacked = torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2)
        floats = stacked.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return floats.sub_(self.mean.to(device)).div_(self.std.to(device)).to(device, dtype)


def centre(image: Image) -> Image:
    """The middle of an image that is longer than MAX_ASPECT times its width; others as they are."""
    height, width = image.shape[:2]
    rows, columns = min(height, MAX_ASPECT * width), min(width, MAX_ASPECT * height)
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(image[top : top + rows, left : left + columns])
