"""Retrieval: against a plain reference, at chance where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.metrics.retrieval import recalls


def unit(rng: np.random.Generator, n: int, d: int = 8) -> np.ndarray:
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def reference(
    images: np.ndarray, texts: np.ndarray, owned: list[list[int]], k: int
) -> tuple[float, float]:
    """Both recalls by sorting, one query at a time."""
    to_text = [
        bool(set(np.argsort(-(texts @ image))[:k]) & set(own))
        for image, own in zip(images, owned, strict=True)
    ]
    owner = {t: i for i, own in enumerate(owned) for t in own}
    to_image = [owner[t] in np.argsort(-(images @ text))[:k] for t, text in enumerate(texts)]
    return float(np.mean(to_text)), float(np.mean(to_image))


@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(1, 4), min_size=2, max_size=12))
def test_recalls_are_those_of_a_plain_sort(seed, sizes):
    """Several captions per image: any of them is a hit; each of them is a query."""
    rng, ends = np.random.default_rng(seed), np.cumsum(sizes)
    owned = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    images, texts = unit(rng, len(sizes)), unit(rng, int(ends[-1]))
    found = recalls(images, texts, owned, (1, 3))
    for k in (1, 3):
        to_text, to_image = reference(images, texts, owned, k)
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(to_text)
        assert found[f"image_retrieval_recall@{k}"] == pytest.approx(to_image)
        assert found[f"recall@{k}"] == pytest.approx((to_text + to_image) / 2)


def test_a_perfect_model_finds_all_and_a_shuffled_one_is_at_chance():
    """Aligned embeddings reach 1; with shuffled captions R@10 of 500 lies near 10 / 500."""
    rng = np.random.default_rng(0)
    images = unit(rng, 500, 32)
    owned = [[i] for i in range(500)]
    assert recalls(images, images, owned, (1,))["recall@1"] == 1.0
    shuffled = recalls(images, images[rng.permutation(500)], owned, (10,))["recall@10"]
    assert abs(shuffled - 0.02) < 0.02


def test_a_constant_output_is_at_chance_and_not_at_one():
    """Equal embeddings everywhere: k / n, wherever the right ones lie in the list."""
    same = np.ones((40, 4), np.float32) / 2
    found = recalls(same, same, [[i] for i in range(40)], (1, 10))
    assert found["recall@1"] == pytest.approx(1 / 40)
    assert found["recall@10"] == pytest.approx(10 / 40)


def test_any_image_that_has_the_caption_is_right():
    """Two images share a caption: both are answers to it, and it is one query."""
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[1, 0.9, 0], [0, 0, 1]], np.float32)
    found = recalls(images, texts, [[0], [0], [1]], (1,))
    assert found["image_retrieval_recall@1"] == 1.0
    assert found["text_retrieval_recall@1"] == 1.0


def test_the_order_of_the_set_changes_nothing():
    """Permuting images together with their captions gives the same recalls, ties included."""
    rng = np.random.default_rng(1)
    images = np.repeat(unit(rng, 10), 2, axis=0)
    texts, order = unit(rng, 20), rng.permutation(20)
    straight = recalls(images, texts, [[i] for i in range(20)], (1, 5))
    shuffled = recalls(images[order], texts, [[int(i)] for i in order], (1, 5))
    assert shuffled == pytest.approx(straight)
