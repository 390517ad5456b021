from hypothesis import given
from hypothesis import strategies as st

from models.phrases import frequent_phrases

texts = st.lists(st.text("ab c", max_size=12), max_size=9)


def test_words_and_pairs_are_ranked_by_captions():
    """Counted once per caption, ties alphabetically, without words that say nothing."""
    captions = ["a red dog", "The red dog", "red red red", "photo of a blue dog"]
    assert frequent_phrases(captions, 9) == [
        ("dog",),
        ("red",),
        ("red", "dog"),
        ("blue",),
        ("blue", "dog"),
        ("red", "red"),
    ]
    assert frequent_phrases(captions, 2) == [("dog",), ("red",)]


def test_a_pair_are_neighbours_that_both_say_something():
    """A stop word between two words parts them."""
    assert ("dog", "cat") not in frequent_phrases(["dog and cat"], 9)
    assert ("dog", "cat") in frequent_phrases(["Dog, cat!"], 9)


def test_scripts_without_blanks_have_phrases():
    """A single character is a word there; a single letter elsewhere is none."""
    assert frequent_phrases(["犬 x"], 9) == [("犬",)]


@given(captions=texts, order=st.randoms(use_true_random=False))
def test_the_order_of_captions_changes_nothing(captions, order):
    """Shuffled captions have the same phrases."""
    assert frequent_phrases(order.sample(captions, len(captions)), 5) == frequent_phrases(
        captions, 5
    )
