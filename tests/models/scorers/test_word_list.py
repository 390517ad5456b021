import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from curate.scoring import to_table
from models.scorers.word_list import MAX_CHARACTERS, WordList
from schemas.configs import WordListScorer

ENTRIES = [
    "dog",
    "red dog",
    "hot dog stand",
    "New York",
    "st. john",
    "cat",
    "café",
    "c",
    "狗",
    "a,b",
]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    def of(entries=ENTRIES, **knobs):
        path = tmp_path_factory.mktemp("words") / "words.txt"
        path.write_text("\n".join(entries), encoding="utf-8")
        return models.scorer(WordListScorer(name="words", words=str(path), **knobs))

    return of


@pytest.fixture(scope="module")
def scorer(make):
    return make()


def spaced(text, split_off, ignore_case):
    text = text.casefold() if ignore_case else text
    for character in split_off:
        text = text.replace(character, f" {character} ")
    return f" {' '.join(text.split())} "


def by_definition(caption, entries, split_off=",.;:?!`", ignore_case=True):
    """A loop over the list, each entry searched for between spaces."""
    text = spaced(caption, split_off, ignore_case)
    return {entry for entry in entries if spaced(entry, split_off, ignore_case) in text}


words = st.sampled_from(
    [
        *("dog", "red", "hot", "stand", "New", "york", "York", "st.", "john", "john.", "cat"),
        *("cats", "Cat,", "CAFÉ", "c", "a,b", "狗", ",", ".", "!", "\t"),
    ]
)
captions = st.lists(words, min_size=1, max_size=12).map(" ".join).filter(str.strip)


@given(captions, st.sampled_from([",.;:?!`", "", "."]), st.booleans())
def test_what_is_found_is_what_the_definition_says(make, caption, split_off, ignore_case):
    """Every entry between spaces, after punctuation was set apart, and no other."""
    scorer = make(split_off=split_off, ignore_case=ignore_case)
    assert set(scorer.found(caption)) == by_definition(caption, ENTRIES, split_off, ignore_case)


def test_whole_words_alone_are_found(scorer, batch_of):
    """Parts of words do not count; an entry counts once; the entries are as the list has them."""
    said = [
        "A red DOG, a hot dog",
        "cats and dogs",
        "in new york.",
        "hot dog stand",
        "狗 🙂",
        "Café",
    ]
    columns = scorer(batch_of(said, [None] * 6))
    assert columns["words"] == [
        ["dog", "red dog"],
        [],
        ["New York"],
        ["dog", "hot dog stand"],
        ["狗"],
        ["café"],
    ]
    assert columns["words_found"] == [2, 0, 1, 2, 1, 1]
    assert columns["error"] == [None] * 6


def test_comments_and_empty_lines_are_no_entries(make):
    """A line that begins with # is not searched for; equal entries count once."""
    scorer = make(["# animals", "", "  dog ", "DOG", "cat"])
    assert scorer.found("a dog # animals cat") == ["dog", "cat"]


def test_a_bad_caption_is_an_error_and_an_odd_one_is_not(scorer, batch_of):
    """No caption is unknown, not zero; surrogates, bidi marks and emoji are text."""
    columns = scorer(batch_of([None, "", " \n", "\ud800 dog", "\u202eכלב dog 🙂"], [None] * 5))
    assert columns["error"] == ["no caption"] * 3 + [None] * 2
    assert columns["words_found"] == [None] * 3 + [1, 1]


def test_a_long_caption_is_read_up_to_its_limit(scorer):
    """10 MB cost no more than the limit; a word that the limit cuts in two is not found."""
    began = time.perf_counter()
    assert scorer.found("dog " * 2_500_000) == ["dog"]
    assert scorer.found("x" * 10_000_000) == []
    assert time.perf_counter() - began < 2
    before = "x" * (MAX_CHARACTERS - 4)
    assert scorer.found(f"{before} cat") == ["cat"]
    assert scorer.found(f"{before} cat dog") == ["cat"]
    assert scorer.found(f"{before} cats") == []
    assert scorer.found(f"x{before} cat") == []


def test_a_long_list_costs_what_a_short_one_does(make):
    """A hundred thousand entries slow a caption by no more than chance."""
    caption = "a red dog and a hot dog stand in new york " * 20

    def seconds(scorer):
        began = time.perf_counter()
        for _ in range(50):
            scorer.found(caption)
        return time.perf_counter() - began

    short, long = make(), make([*ENTRIES, *(f"entry {i}" for i in range(100_000))])
    assert seconds(long) < 20 * seconds(short)


def test_order_and_batches_change_nothing(scorer, batch_of, noise):
    """Each caption has its own words, whatever stands beside it and whatever the image."""
    said = ["a dog", "a cat", "nothing", "new york"]
    whole = scorer(batch_of(said, [noise(0)] * 4))
    for row, caption in enumerate(said):
        alone = scorer(batch_of([caption], [None]))
        assert {name: values[row] for name, values in whole.items()} == {
            name: values[0] for name, values in alone.items()
        }


def test_words_fit_their_table(scorer, batch_of):
    """The columns are those of scores_word_list, a list of strings among them."""
    batch = batch_of(["a red dog", None, "x"], [None] * 3)
    table = to_table(batch, scorer(batch), "word_list")
    assert table["words_found"].to_pylist() == [2, None, 0]
    assert table["words"].to_pylist() == [["dog", "red dog"], None, []]


def test_a_list_that_is_not_there_is_named(tmp_path):
    """A missing, an empty and an unreadable file say which and what it should be."""
    missing, empty, binary = (tmp_path / name for name in ("missing", "empty", "binary"))
    empty.write_text("# nothing\n\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path, said in ((missing, "No such file"), (empty, "no entries"), (binary, "UTF-8")):
        with pytest.raises(ValueError, match=said) as found:
            WordList(WordListScorer(name="words", words=str(path)))
        assert str(path) in str(found.value)
