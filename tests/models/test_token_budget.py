"""Two captions in one context: the generated one survives, nothing exceeds the budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.token_budget import WORDS, counter, cut, joined

TOKENIZERS = (WORDS, "ViT-B-32")


def text(word: str, n: int) -> str:
    return " ".join(f"{word}{i}" for i in range(n))


def test_the_generated_caption_survives_a_long_original():
    """With 30 tokens and an original of 40 the generated caption's first words are there."""
    found = joined(text("o", 40), text("g", 8), 30, 0.5, "; ", counter(WORDS))
    assert found == f"{text('o', 22)}; {text('g', 8)}"
    found = joined(text("o", 40), text("g", 40), 30, 0.5, "; ", counter(WORDS))
    assert found == f"{text('o', 15)}; {text('g', 15)}"
    found = joined(text("o", 3), text("g", 40), 30, 0.5, "; ", counter(WORDS))
    assert found == f"{text('o', 3)}; {text('g', 27)}"


def test_one_caption_stands_alone_where_the_other_is_empty():
    """No separator without two sides."""
    count = counter(WORDS)
    assert joined("", "a dog", 30, 0.5, "; ", count) == "a dog"
    assert joined("a dog", " ", 30, 0.5, "; ", count) == "a dog"
    assert joined("", "", 30, 0.5, "; ", count) == ""


ANY = st.text(max_size=60) | st.lists(
    st.sampled_from(["dog", "ドッグ", "x" * 50, "a,b", "🐶"])
).map(" ".join)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(
    original=ANY, generated=ANY, budget=st.integers(1, 20), reserve=st.sampled_from([0.0, 0.5, 1.0])
)
def test_nothing_exceeds_the_budget(tokenizer, original, generated, budget, reserve):
    """Whatever the captions are, their join has at most so many tokens, and what is left of each
    is its beginning.
    """
    count = counter(tokenizer)
    found = joined(original, generated, budget, reserve, "; ", count)
    assert count(found) <= budget
    if not original.strip() or not generated.strip():
        assert (original.strip() or generated.strip()).startswith(found)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_cut_is_the_longest_beginning_that_fits(tokenizer):
    """Whole words, by the tokenizer's own count; a first word that is too long is cut within."""
    count, words = counter(tokenizer), "a photograph of 12 bored dogs, sleeping"
    for tokens in range(1, 14):
        found = cut(words, tokens, count)
        assert words.startswith(found)
        assert count(found) <= tokens
        rest = words[len(found) :].strip().split(" ")[0]
        assert found == words or count(f"{found} {rest}") > tokens
    long = cut("pneumonoultramicroscopicsilicovolcanoconiosis", 2, count)
    assert len(long) > 0
    assert count(long) <= 2


def test_an_unknown_tokenizer_is_one_clear_error():
    """The name and what may stand there."""
    with pytest.raises(ValueError, match=r"tokenizer 'nope' cannot be had .*'words'"):
        counter("nope")
