import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.vocabulary import PADDING, UNKNOWN, Vocabulary, words

texts = st.lists(st.text(max_size=30), max_size=12)


def test_words_are_ranked_by_frequency_then_alphabet():
    """The most frequent word is first, equally frequent ones are in alphabetical order."""
    vocabulary = Vocabulary.learn(["a dog", "The dog!", "b cat", "a cat, a CAT"], 3)
    assert vocabulary.words == ("a", "cat", "dog")
    assert Vocabulary.learn(["a dog", "The dog!", "b cat"], 9).words == (
        "dog",
        "a",
        "b",
        "cat",
        "the",
    )


def test_a_word_counts_once_per_caption():
    """A caption that repeats a word a million times does not push out others."""
    assert Vocabulary.learn(["spam " * 9999, "cat", "cat"], 1).words == ("cat",)


def test_long_keys_are_not_learned():
    """A run of more than 40 letters is no word."""
    assert Vocabulary.learn(["x" * 41, "y" * 40], 9).words == ("y" * 40,)


def test_the_layout_is_start_words_end_padding():
    """Unknown words have their id, the end has the highest id, texts are cut to the context."""
    vocabulary = Vocabulary.learn(["dog"], 4)
    start, end = vocabulary.start, vocabulary.end
    rows = vocabulary.encode(["dog", "cat dog", "dog dog dog dog", ""], 5)
    assert rows.dtype == np.int64
    assert rows.tolist() == [
        [start, 2, end, PADDING, PADDING],
        [start, UNKNOWN, 2, end, PADDING],
        [start, 2, 2, 2, end],
        [start, end, PADDING, PADDING, PADDING],
    ]
    assert end == vocabulary.size - 1 == rows.max()


def test_no_texts_give_an_empty_array():
    """Encoding nothing keeps the width."""
    assert Vocabulary(["a"]).encode([], 7).shape == (0, 7)


def test_scripts_without_spaces_are_split_by_character():
    """Han, kana and Thai captions are characters; others are runs of letters and digits."""
    assert list(words("赤い車 ABC1 ｗｉｄｅ don't")) == [*"赤い車", "abc1", "wide", "don", "t"]


@given(texts, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_captions_changes_nothing(captions, size, random):
    """Learning from a shuffled list gives the same words."""
    shuffled = captions[:]
    random.shuffle(shuffled)
    assert Vocabulary.learn(captions, size).words == Vocabulary.learn(shuffled, size).words


@given(texts)
def test_every_text_is_readable_by_argmax_pooling(captions):
    """Each row has exactly one start, first, and one end, which is the highest id of all."""
    vocabulary = Vocabulary.learn(captions, 5)
    rows = vocabulary.encode(captions, 6)
    assert (rows[:, :1] == vocabulary.start).all()
    assert ((rows == vocabulary.end).sum(axis=1) == 1).all()
    for row, caption in zip(rows, captions, strict=True):
        assert Counter(row > PADDING)[True] == 2 + min(4, len(list(words(caption))))


@given(texts)
def test_saving_and_loading_is_the_identity(captions):
    """What was saved is loaded: same words, same ids."""
    import tempfile
    from pathlib import Path

    vocabulary = Vocabulary.learn(captions, 20)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder) / "v.json")
        loaded = Vocabulary.load(Path(folder) / "v.json")
    assert loaded.words == vocabulary.words
    assert (loaded.encode(captions, 8) == vocabulary.encode(captions, 8)).all()


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"words": []})])
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, content):
    """A missing or foreign file raises an error with its path and the remedy."""
    path = tmp_path / "v.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"v\.json: .*fit the scorer again"):
        Vocabulary.load(path)


def test_a_huge_caption_is_quick():
    """A caption of 10 MB is encoded from its beginning."""
    vocabulary = Vocabulary(["a"])
    assert vocabulary.encode(["a " * 5_000_000], 4).tolist() == [
        [vocabulary.start, 2, 2, vocabulary.end]
    ]


@given(captions=texts)
def test_known_words_are_decoded_as_they_were_encoded(captions: list[str]):
    """Up to the end mark; what is decoded is encoded to the same ids."""
    vocabulary = Vocabulary.learn(captions, 99)
    ids = vocabulary.encode(captions, 80)
    decoded = [vocabulary.decode(row) for row in ids]
    spoken = [" ".join(w for w in words(c) if len(w) <= 40) for c in captions]
    assert [t.replace(" ", "") for t in decoded] == [t.replace(" ", "") for t in spoken]


def test_decoding_leaves_special_ids_out():
    """Start, padding and unknown say nothing, and nothing follows the end."""
    v = Vocabulary(["dog", "red"])
    ids = [v.start, v.id_of("red"), UNKNOWN, PADDING, v.id_of("dog"), v.end, v.id_of("red")]
    assert v.decode(ids) == "red dog"
    assert v.id_of("cat") == UNKNOWN


def test_scripts_without_blanks_are_decoded_without():
    """A blank stands between words, not between characters that are words."""
    vocabulary = Vocabulary.learn(["赤い犬 red dog"], 9)
    assert vocabulary.decode(vocabulary.encode(["赤い犬 red dog"], 12)[0]) == "赤い犬 red dog"
