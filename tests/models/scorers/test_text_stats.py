import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.scorers.boilerplate import FILLER, STOCK, is_boilerplate, tokens
from models.scorers.text_stats import URL, TextStats, is_file_name, non_letter_share
from schemas.configs import TextStatsScorer
from schemas.tables import SCORES


@pytest.fixture(scope="module")
def scorer():
    return TextStats(TextStatsScorer())


@pytest.fixture
def stats(scorer, batch_of):
    def of(*captions):
        none = [None] * len(captions)
        return scorer(
            batch_of(
                captions,
                none,
                text_stats__images_per_caption=none,
                text_stats__captions_per_image=none,
            )
        )

    return of


@pytest.mark.parametrize(
    "caption",
    [
        "IMG_2031.jpg",
        "IMG_2031",
        "DSC00412",
        "photo-1.png",
        "untitled.gif",
        "Untitled-3",
        "P1010203.JPG",
        "Screenshot 2020-01-01 at 10.11.12",
        "Screen Shot 2019-12-31 at 5.06.07 PM.png",
        "image001",
        "20190412_123456",
        "25348_10155_n.jpg",
        "d41d8cd98f00b204e9800998ecf8427e",
        "File:Old barn.jpeg",
        "WhatsApp Image 2021-03-04 at 12.00.01",
        "  my cat.webp ",
        '"logo.svg"',
        "image (3)",
        "PXL_20210101",
    ],
)
def test_file_names_are_recognised(caption):
    """Names that cameras, phones and programs give are file names."""
    assert is_file_name(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "a cat",
        "photo of a cat",
        "image",
        "1984",
        "Boeing 747",
        "the .jpg format explained",
        "iPhone 12",
        "img",
        "deadbeef",
        "photographer 2",
        "GP 2020",
        "12 monkeys",
        "",
        "a/b.jpg is a path",
        "scan me 3 times",
    ],
)
def test_sentences_are_no_file_names(caption):
    """Descriptions, numbers in them and short words are not file names."""
    assert not is_file_name(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "click to enlarge",
        "Click to Enlarge!",
        "image",
        "IMAGE",
        "[photo]",
        "Picture 3",
        "logo",
        "untitled",
        "thumbnail",
        "stock photo",
        "View Larger Image",
        "no caption",
        "No image available.",
        "image 1 of 12",
        "Image may contain:",
        "Photo - click to view larger",
        "ｉｍａｇｅ",
        "图片",
        "stock photo, royalty free",
        "image image image",
        "Zoom In",
        "null",
        "N/A",
        "alt text",
        "placeholder.png",
    ],
)
def test_boilerplate_is_recognised(caption):
    """Captions of stock phrases and filler alone are boilerplate, in any case and punctuation."""
    assert is_boilerplate(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "photo of a cat",
        "click beetle",
        "logo of a bakery",
        "camera",
        "framed picture",
        "the",
        "1234",
        "of the",
        "image of the president",
        "home",
        "map",
        "a stock market photo",
        "zoomed in flower",
        "",
        "🙂",
        "!!!",
    ],
)
def test_descriptions_are_no_boilerplate(caption):
    """One word that names something is enough; filler alone is not boilerplate."""
    assert not is_boilerplate(caption)


@given(
    st.lists(st.sampled_from(sorted(STOCK)), min_size=1, max_size=6),
    st.sampled_from([" ", " - ", ", the "]),
)
def test_phrases_in_a_row_are_boilerplate_and_stop_being_so_with_a_real_word(phrases, between):
    """Any sequence of stock phrases is boilerplate; with one other word anywhere it is not."""
    caption = between.join(" ".join(phrase) for phrase in phrases)
    assert is_boilerplate(caption)
    assert not is_boilerplate(f"{caption} giraffe")
    assert not is_boilerplate(f"giraffe {caption}")


@given(
    st.lists(
        st.sampled_from(
            ["image", "click", "to", "here", "zoom", "the", "3", "cat", "view", "more"]
        ),
        max_size=7,
    )
)
def test_boilerplate_equals_its_plain_reference(words):
    """The one pass agrees with trying every way to cut the words."""

    def cut(rest, found):
        if not rest:
            return found
        if (rest[0] in FILLER or rest[0].isdecimal()) and cut(rest[1:], found):
            return True
        return any(
            tuple(rest[:n]) in STOCK and cut(rest[n:], True) for n in range(1, len(rest) + 1)
        )

    assert is_boilerplate(" ".join(words)) == cut(words, False)


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("see https://a.b/c", True),
        ("www.shop.example", True),
        ("buy at Shop.com today", True),
        ("a dog. Community", False),
        ("http://", False),
        ("e.g. cats", False),
        ("node.commit", False),
        ("photo by x.org", True),
    ],
)
def test_urls_are_found(caption, found):
    """Addresses with a scheme, www or a common ending count; abbreviations do not."""
    assert (URL.search(caption) is not None) == found


def test_counts_and_shares(stats):
    """Characters, words and the share of non-letters of small captions are the counted ones."""
    columns = stats("a red-dog 12", "हिन्दी", "🙂🙂 ab")
    assert columns["characters"] == [12, 6, 5]
    assert columns["words"] == [3, 1, 2]
    assert columns["non_letter_share"] == pytest.approx([3 / 10, 0, 0.5])


def test_languages_are_told_without_the_network(stats, monkeypatch):
    """The packaged model names languages; a caption without letters has none."""

    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    columns = stats(
        "a brown dog runs on the grass",
        "ein brauner Hund läuft auf der Wiese",
        "שלום עולם",
        "123 🙂",
    )
    assert columns["language"] == ["en", "de", "he", None]
    assert columns["language_confidence"][3] is None
    assert all(0 < confidence <= 1 for confidence in columns["language_confidence"][:3])


def test_pool_counts_come_from_the_batch(scorer, batch_of):
    """Counts are handed through, None included."""
    batch = batch_of(
        ["a", "b"],
        [None, None],
        text_stats__images_per_caption=[3, None],
        text_stats__captions_per_image=[1, None],
    )
    columns = scorer(batch)
    assert columns["images_per_caption"] == [3, None]
    assert columns["captions_per_image"] == [1, None]


def test_missing_pool_counts_are_named(scorer, batch_of):
    """Without the counts the error names the column."""
    with pytest.raises(
        ValueError, match="needs the batch column text_stats__images_per_caption; found none"
    ):
        scorer(batch_of(["a"], [None]))


@pytest.mark.parametrize("caption", [None, "", "  \n\t"])
def test_no_caption_is_an_error(stats, caption):
    """A null or blank caption has the error and nulls; its neighbour is scored."""
    columns = stats(caption, "a dog")
    assert columns["error"] == ["no caption", None]
    for name in SCORES["text_stats"].names:
        assert columns[name][0] is None
    assert columns["characters"][1] == 5


@given(caption=st.text(max_size=60))
def test_any_text_is_scored(scorer, caption):
    """No string breaks a check, unpaired surrogates, controls and right-to-left marks included."""
    row = scorer._row(caption + "\ud800\u202e\x00")
    assert 0 <= row["non_letter_share"] <= 1


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a ",
        "a-",
        "a.",
        "1_",
        "image ",
        "click to ",
        "http:/",
        "img_1 ",
        "(",
        "é",
        "🙂",
        "\u202e",
        " ",
    ],
)
def test_megabytes_cost_seconds(scorer, piece):
    """A megabyte of any piece, chosen against the patterns, is scored in linear time."""
    caption = "x" + piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    scorer._row(caption)
    assert time.perf_counter() - started < 10


def test_long_stock_text_stays_linear():
    """A megabyte of stock phrases is still boilerplate."""
    assert is_boilerplate("click to enlarge " * 20_000)


def test_the_list_is_clean():
    """No phrase is empty or filler alone."""
    assert () not in STOCK
    assert not any(all(word in FILLER for word in phrase) for phrase in STOCK)
    assert list(tokens("Click HERE!")) == ["click", "here"]


@given(st.text(max_size=40))
def test_non_letter_share_is_a_share(caption):
    """It lies in 0..1 and is 0 for letters alone."""
    assert 0 <= non_letter_share(caption) <= 1
