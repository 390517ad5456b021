"""Images with words on them, drawn with Pillow's own font."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 256
WORDS = (
    *("red dog", "winter coat", "SALE 50% OFF", "free shipping", "Berlin 2019", "apple tree"),
    *("happy birthday", "mountain lake"),
)


def noise(seed: int, side: int = SIDE) -> np.ndarray:
    """Smooth and fine noise in colours, as uneven as a photo."""
    rng, found = np.random.default_rng(seed), np.full((side, side, 3), 128.0)
    for cells, strength in ((2, 60), (8, 40), (32, 25), (128, 12)):
        grid = rng.normal(0, strength, (3, cells, cells))
        layers = [Image.fromarray(g.astype(np.float32)).resize((side, side)) for g in grid]
        found += np.stack([np.asarray(layer) for layer in layers], axis=2)
    return np.clip(found, 0, 255).astype(np.uint8)


def write(
    image: np.ndarray, text: str, size: int, angle: float = 0, at: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The image with a text around a point (its centre), black or white, whichever differs more;
    and where the letters are, as bool (height, width)."""
    height, width = image.shape[:2]
    layer = Image.new("L", (width, height))
    x, y = at or (width // 2, height // 2)
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(size)
    draw.text((x, y), text, font=font, fill=255, anchor="mm")
    turned = layer.rotate(angle, resample=Image.Resampling.BICUBIC, center=(x, y))
    ink = np.asarray(turned)[..., None] / 255
    colour = 255 if image[ink[..., 0] > 0.5].mean() < 128 else 0
    return (image * (1 - ink) + colour * ink).astype(np.uint8), ink[..., 0] > 0.5
