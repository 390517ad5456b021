"""As many rows at once as memory holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
log = logging.getLogger(__name__)


class Fitting:
    """Calls with at most `rows` rows. Where memory runs out it halves them, for this call and all
    that follow; a single row that does not fit raises torch.OutOfMemoryError.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, encode: Callable[[Sequence[T]], Tensor], items: Sequence[T]) -> list[Tensor]:
        """The results of runs of the items, in their order."""
        found: list[Tensor] = []
        begin = 0
        while begin < len(items):
            run = items[begin : begin + self.rows]
            result = self._try(encode, run)
            if result is not None:
                found.append(result)
                begin += len(run)
        return found

    def _try(self, encode: Callable[[Sequence[T]], Tensor], run: Sequence[T]) -> Tensor | None:
        import torch

        try:
            return encode(run)
        except torch.OutOfMemoryError:
            if len(run) == 1:
                raise
        # after the handler: its traceback holds the tensors of the failed call
        self.rows = len(run) // 2
        log.warning("out of memory with %d rows at once; %d from here", len(run), self.rows)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None
