"""Zero-shot classification: small exact cases."""

from __future__ import annotations

import numpy as np
import pytest

from curate.metrics.zero_shot import accuracies, prototypes


class Letters:
    """An encoder of texts by their letters: enough to tell prompts apart."""

    def embed_texts(self, texts):
        counts = np.array(
            [[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], float
        )
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def test_accuracies_of_a_small_case():
    """Two of three right; the mean over classes weighs a class of one image as one of two."""
    classes = np.eye(2, dtype=np.float32)
    images = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    found = accuracies(images, classes, np.array([0, 0, 1]))
    assert found == pytest.approx({"acc1": 2 / 3, "mean_per_class_recall": 0.75})


def test_acc5_is_given_where_it_can_fail():
    """With ten classes and a constant output both accuracies are at chance."""
    same = np.ones((10, 4), np.float32) / 2
    found = accuracies(same, same, np.arange(10))
    assert found["acc1"] == pytest.approx(0.1)
    assert found["acc5"] == pytest.approx(0.5)


def test_the_order_of_templates_and_their_repetition_change_nothing():
    """A class is the mean over the set of its prompts, to the last bit."""
    templates = ["a photo of a {}.", "{}", "a {c} on a table"]
    one = prototypes(Letters(), ["dog", "cat"], templates)
    other = prototypes(Letters(), ["dog", "cat"], [*reversed(templates), templates[0]])
    assert np.array_equal(one, other)
    assert np.allclose(np.linalg.norm(one, axis=1), 1)


def test_a_template_without_a_place_is_refused():
    """The error quotes it and says what to write."""
    with pytest.raises(ValueError, match=r"template 'a photo' has no place .* write \{\}"):
        prototypes(Letters(), ["dog"], ["a photo"])
