"""Validate: checkpoints -> metrics.

Retrieval and zero-shot classification of a checkpoint on held-out sets. Every value lies in 0..1
and counts ties as their expectation, so that a model with a constant output is at chance and never
above.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.encoder import load
from curate.metrics import evaluate
from schemas.configs import EvaluationConfig


def validate(
    checkpoint: str | Path, evaluations: Sequence[EvaluationConfig]
) -> list[dict[str, Any]]:
    """Rows of `metrics` without run, subset, seed: step, metric `<evaluation>/<measure>`, value, n.

    checkpoint: a step-… folder that `train` wrote. Raises ValueError where it is none or a set
    cannot be read.
    """
    encoder = load(checkpoint)
    step = json.loads((Path(checkpoint) / "checkpoint.json").read_text())["step"]
    return [{"step": step, **row} for config in evaluations for row in evaluate(encoder, config)]
