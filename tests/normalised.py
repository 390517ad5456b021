"""Images as open_clip models see them."""

from __future__ import annotations

import numpy as np
import open_clip
import torch


def normalised(images: np.ndarray) -> torch.Tensor:
    """What open_clip's transform makes of images (n, side, side, 3) of the model's size."""
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
