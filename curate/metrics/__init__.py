"""Metrics: one file each; `evaluate(encoder, config)` runs the one that a config names."""

from __future__ import annotations

from typing import Any, assert_never

from curate.encoder import Encoder
from schemas.configs import EvaluationConfig, Retrieval, ZeroShot

Row = dict[str, Any]  # metric, value, n


def evaluate(encoder: Encoder, config: EvaluationConfig) -> list[Row]:
    """Rows of metric, value (0..1) and n, the number of things that were averaged."""
    match config:
        case Retrieval():
            from curate.metrics.retrieval import retrieval

            return retrieval(encoder, config)
        case ZeroShot():
            from curate.metrics.zero_shot import zero_shot

            return zero_shot(encoder, config)
        case _:
            assert_never(config)
