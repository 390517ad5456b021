"""The nearest of many points by inner product, the same to the bit whatever stands beside a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
ROWS, POINTS = 512, 16_384  # of one product, always so many rows: 32 MB of similarities


class Nearest:
    """Points (k, d), k at least 1, float32; on the GPU where there is one. An array that is mapped
    into memory stays there without.
    """

    def __init__(self, points: Array) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.chunks: list[Tensor] = [
            torch.from_numpy(points[start : start + POINTS]).to(self.device)
            for start in range(0, len(points), POINTS)
        ]

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Of each row (n, d) the point with the largest inner product, the first of equals, and
        that product: int64 (n,), float32 (n,).
        """
        import torch

        places, products = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
        block = np.zeros((ROWS, rows.shape[1]), np.float32)
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            block[: len(some)] = some
            with torch.inference_mode():
                place, product = self._nearest(torch.tensor(block).to(self.device))
            run = slice(start, start + len(some))
            places[run] = place.cpu().numpy()[: len(some)]
            products[run] = product.cpu().numpy()[: len(some)]
        return places, products

    def _nearest(self, block: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        best, where = (block @ self.chunks[0].T).max(dim=1)
        for number, chunk in enumerate(self.chunks[1:], 1):
            product, place = (block @ chunk.T).max(dim=1)
            closer = product > best
            best = torch.where(closer, product, best)
            where = torch.where(closer, place + number * POINTS, where)
        return where, best
