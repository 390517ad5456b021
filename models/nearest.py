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

    def __call__(self, rows: Array, but: Array | None = None) -> tuple[Array, Array]:
        """Of each row (n, d) the point with the largest inner product, the first of equals, and
        that product: int64 (n,), float32 (n,).

        but: int64 (n,), the number of a point that a row is not compared with, or -1. Where no
        other is left, the product is -inf.
        """
        import torch

        places, products = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
        block = np.zeros((ROWS, rows.shape[1]), np.float32)
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            block[: len(some)] = some
            left_out = None if but is None else torch.from_numpy(but[start : start + ROWS])
            with torch.inference_mode():
                place, product = self._nearest(torch.tensor(block).to(self.device), left_out)
            run = slice(start, start + len(some))
            places[run] = place.cpu().numpy()[: len(some)]
            products[run] = product.cpu().numpy()[: len(some)]
        return places, products

    def _nearest(self, block: Tensor, but: Tensor | None) -> tuple[Tensor, Tensor]:
        import torch

        best, where = self._products(block, 0, but).max(dim=1)
        for number in range(1, len(self.chunks)):
            product, place = self._products(block, number, but).max(dim=1)
            closer = product > best
            best = torch.where(closer, product, best)
            where = torch.where(closer, place + number * POINTS, where)
        return where, best

    def _products(self, block: Tensor, number: int, but: Tensor | None) -> Tensor:
        products = block @ self.chunks[number].T
        if but is not None:
            column = but - number * POINTS
            row = ((column >= 0) & (column < products.shape[1])).nonzero()[:, 0]
            products[row.to(self.device), column[row].to(self.device)] = float("-inf")
        return products
