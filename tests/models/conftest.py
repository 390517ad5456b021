"""Batches of any size, from what a test cares about."""

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.base import Batch


def make_batch(captions, images, **columns: list[Any]) -> Batch:
    n = len(captions)
    uids = [f"{i:032x}" for i in range(n)]
    return Batch(
        uids=uids,
        caption_ids=uids,
        captions=list(captions),
        images=list(images),
        image_errors=["undecodable image" if image is None else None for image in images],
        columns=dict(columns),
    )


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """A function (captions, images, **columns) -> Batch; a None image is an undecodable one."""
    return make_batch


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach, and whoever opens a connection fails."""
    import huggingface_hub.constants

    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def take() -> Callable[[Batch, list[int]], Batch]:
    """A function (batch, rows) -> the batch of these rows, in this order."""

    def rows_of(batch: Batch, rows: list[int]) -> Batch:
        def pick(values):
            return [values[row] for row in rows]

        return Batch(
            uids=pick(batch.uids),
            caption_ids=pick(batch.caption_ids),
            captions=pick(batch.captions),
            images=pick(batch.images),
            image_errors=pick(batch.image_errors),
            columns={name: pick(values) for name, values in batch.columns.items()},
        )

    return rows_of


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """A function (seed, height, width, channels) -> a uint8 image of noise."""

    def image(seed: int, height: int = 40, width: int = 40, channels: int = 3) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)

    return image
