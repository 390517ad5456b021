"""Balance: exact shares of small pools, distances that a plain count gives too, nothing from the
web that is more than text.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from curate.query import connect
from curate.reporting.balance import Balance, Bars, Share, balance
from curate.reporting.charts import compared_svg
from curate.reporting.histograms import Histogram
from models.phrases import STOP_WORDS
from models.vocabulary import words
from schemas.configs import ChooseCaption, RandomSelector
from tests.gallery import HOSTILE, add_rows
from tests.tiny import Row, add_table, tiny_dataset


def selected(root: Any, rows: list[Row], keep: list[bool], name: str = "half") -> Dataset:
    """A dataset with subset_<name> of the rows that are kept."""
    data = tiny_dataset(root, rows)
    add_rows(data, f"subset_{name}", chosen(rows, keep))
    return data


def chosen(rows: list[Row], keep: list[bool]) -> list[dict[str, str]]:
    return [{"uid": r.uid} for r, kept in zip(rows, keep, strict=True) if kept]


def plots(data: Dataset, subset: str | None = None) -> dict[str, Any]:
    found = balance(connect(data), data, subset)
    assert found is not None
    return {plot.title: plot for plot in found.plots}


def test_concepts_are_the_words_of_captions(tmp_path):
    """A word counts once a caption, stop words and numbers not at all; the shares are of pairs."""
    texts = ["A dog, a DOG and 2 cats", "the dog 2024", "cats!", None]
    rows = [Row(f"https://x.example/{i}", text) for i, text in enumerate(texts)]
    found = plots(selected(tmp_path / "set", rows, [False, True, False, True]))
    assert found["Concepts: most frequent words"].drawing.groups == (
        ("", (Share("cats", 0.5, 0.0), Share("dog", 0.5, 0.5))),
    )
    assert found["Concepts: lost and gained"].drawing.groups == (
        ("lost most", (Share("cats", 0.5, 0.0),)),
    )
    assert "Total variation distance 0.500" in found["Concepts: most frequent words"].said


def test_words_that_are_gone_are_counted(tmp_path):
    """Of the words in ten captions or more, those that no selected caption has."""
    texts = ["bird"] * 10 + ["fish"] * 10 + ["frog"] * 9 + ["bird"]
    rows = [Row(f"https://x.example/{i}", text) for i, text in enumerate(texts)]
    found = plots(selected(tmp_path / "set", rows, [False] * 29 + [True]))
    assert found["Concepts: lost and gained"].said == (
        "Of 2 words that 10 or more captions have, 1 are in none that is left."
    )
    assert found["Concepts: lost and gained"].drawing.groups[1] == (
        "gained most",
        (Share("bird", 11 / 30, 1.0),),
    )


LETTERS = st.sampled_from(
    [*"abAB1 -_.'", "ﬁ", "É", "\u0301", "İ", "犬", "ß", "Ⅻ", "\x00", "\u3000"]
)


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.none() | st.text(LETTERS, max_size=12), min_size=2, max_size=12))
def test_counts_are_those_of_the_vocabulary_and_of_split(texts, tmp_path_factory):
    """Whatever the script: words as models/vocabulary finds them, lengths as str.split counts."""
    rows = [Row(f"https://x.example/{i}", text) for i, text in enumerate(texts)]
    kept = [i % 2 == 0 for i in range(len(rows))]
    data = selected(tmp_path_factory.mktemp("set"), rows, kept)
    found = plots(data)
    before, after = expected(texts), expected(texts[::2])
    top = sorted(before, key=lambda word: (-before[word], word.encode()))[:20]
    shares = tuple(Share(w, before[w] / len(texts), after[w] / len(texts[::2])) for w in top)
    frequent = found.get("Concepts: most frequent words")
    assert (frequent.drawing.groups[0][1] if frequent else ()) == shares
    if sum(after.values()):
        n, m = sum(before.values()), sum(after.values())
        apart = sum(abs(before[w] / n - after[w] / m) for w in before) / 2
        said = re.search(r"distance (\d\.\d+)", frequent.said)
        assert float(said[1]) == pytest.approx(apart, abs=0.00051)
    lengths = Counter(len((text or "").split()) for text in texts)
    drawn = found["Caption lengths"].drawing
    assert drawn.everyone == tuple(lengths[n] for n in range(min(lengths), max(lengths) + 1))
    assert sum(drawn.kept) == len(texts[::2])


def expected(texts: list[str | None]) -> Counter[str]:
    """How many captions have each word that tells something."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(
            {
                word
                for word in words(text or "")
                if word not in STOP_WORDS
                and not word.isnumeric()
                and (len(word) > 1 or word > "\x7f")
            }
        )
    return seen


def test_hosts_beyond_the_fifteen_largest_are_one_bar(tmp_path):
    """Case, port, user and path are no part of a host; a URL without one is counted too."""
    large = [f"https://user@H{h:02}.example:80/{i}" for h in range(15) for i in range(2)]
    urls = [*large, "https://small.example?x", "http://[::1]:80/", "no url"]
    rows = [Row(url) for url in urls]
    keep = [url in (large[0], large[1], "no url", large[2]) for url in urls]
    found = plots(selected(tmp_path / "set", rows, keep))["Hosts"]
    ((_, shares),) = found.drawing.groups
    assert shares[0] == Share("h00.example", 2 / 33, 0.5)
    assert shares[1] == Share("h01.example", 2 / 33, 0.25)
    assert shares[-1] == Share("other (3)", 3 / 33, 0.25)
    assert len(shares) == 16
    assert found.said.startswith("18 hosts before, 3 after.")


def test_all_hosts_shown_leave_no_others(tmp_path):
    """Shares are of counts: nothing remains of rounding."""
    rows = [Row(f"https://{i % 3}.example/{i}") for i in range(10)]
    found = plots(selected(tmp_path / "set", rows, [True] * 10))["Hosts"]
    assert [s.label for s in found.drawing.groups[0][1]] == ["0.example", "1.example", "2.example"]
    assert "Total variation distance 0.000" in found.said


def test_where_nothing_is_lost_no_word_has_moved(tmp_path):
    """Only the frequent words have a plot."""
    rows = [Row(f"https://x.example/{i}", "a dog") for i in range(3)]
    found = plots(selected(tmp_path / "set", rows, [True] * 3))
    assert [t for t in found if "Concepts" in t] == ["Concepts: most frequent words"]


def test_languages_are_those_of_a_scorer(tmp_path):
    """Of original captions; a pair without one is unknown."""
    rows = [Row(f"https://x.example/{i}") for i in range(4)]
    data = selected(tmp_path / "set", rows, [True, True, False, False])
    assert "Languages" not in plots(data)
    spoken = ["en", "de", "de"]
    table = {"uid": [r.uid for r in rows[:3]], "caption_id": [r.uid for r in rows[:3]]}
    add_table(data, "scores_words", {0: pa.table(table | {"language": spoken})}, ())
    generated = {"uid": [rows[0].uid], "caption_id": ["g"], "language": ["fr"]}
    add_table(data, "scores_words@hf", {0: pa.table(generated)}, ())
    found = plots(data)["Languages"]
    assert found.drawing.groups == (
        ("", (Share("de", 0.5, 0.5), Share("en", 0.25, 0.5), Share("unknown", 0.25, 0.0))),
    )
    assert found.said.startswith("3 languages before, 2 after. Total variation distance 0.250")


def test_sizes_are_the_shorter_sides(tmp_path):
    """Of downloaded images alone, a failed pair is in no count."""
    sides = [(100, 300), (102, 101), (500, 102), (103, 103)]
    rows = [Row(f"https://x.example/{w}", width=w, height=h) for w, h in sides]
    rows.append(Row("https://x.example/dead", status="failed_to_download"))
    found = balance(
        connect(data := selected(tmp_path / "set", rows, [False] * 3 + [True] * 2)), data
    )
    assert isinstance(found, Balance)
    assert (found.before, found.after) == (4, 1)
    (sizes,) = (p for p in found.plots if p.title == "Image sizes")
    assert isinstance(sizes.drawing, Histogram)
    assert (sizes.drawing.lo, sizes.drawing.hi) == (99.5, 103.5)
    assert sizes.drawing.everyone == (1, 1, 1, 1)
    assert sizes.drawing.kept == (0, 0, 0, 1)
    assert "median 101 before, 103 after. Total variation distance 0.750" in sizes.said


def test_the_subset_is_the_one_that_decided(tmp_path):
    """Else the first; another one by its name, and a name that none has is an error."""
    rows = [Row(f"https://x.example/{i}") for i in range(8)]
    data = selected(tmp_path / "set", rows, [True] * 3 + [False] * 5, "a")
    add_rows(data, "subset_b", chosen(rows, [True] * 2 + [False] * 6))
    con = connect(data)
    assert [balance(con, data, name).subset for name in (None, "b")] == ["a", "b"]
    with pytest.raises(ValueError, match=r"no subset_c .* there are a, b"):
        balance(con, data, "c")
    compress(data, [RandomSelector(name="z", count=1)], ChooseCaption())
    found = balance(connect(data), data)
    assert (found.subset, found.after) == ("z", 1)


def test_a_pool_without_a_subset_has_no_balance(tmp_path):
    """None, as for a subset that nothing is in."""
    rows = [Row(f"https://x.example/{i}") for i in range(4)]
    data = tiny_dataset(tmp_path / "set", rows)
    assert balance(connect(data), data) is None
    with pytest.raises(ValueError, match="compress first"):
        balance(connect(data), data, "half")
    add_rows(data, "subset_half", [])
    assert balance(connect(data), data) is None


def test_a_blind_draw_is_near_and_a_biased_one_is_not(tmp_path):
    """The distance of a random half is about that of the blind draw; of one host's far above it."""
    rows = [Row(f"https://{i % 20}.example/{i}", f"word{i % 50}") for i in range(1000)]
    data = selected(tmp_path / "set", rows, [i % 20 < 10 for i in range(1000)])
    moved, blind = map(float, re.findall(r"\d\.\d+", plots(data)["Hosts"].said))
    assert moved == 0.5
    assert 0 < blind < 0.15


def test_labels_of_the_web_are_text_in_the_charts(tmp_path):
    """Hostile hosts and captions cannot be markup, and long ones keep their begin and end."""
    host = "https://<b>\u202e" + "x" * 300 + ".evil.example"
    rows = [Row(f"{host}/{i}", text) for i, text in enumerate(HOSTILE)]
    found = plots(selected(tmp_path / "set", rows, [True] * len(rows)))
    pictures = {title: str(compared_svg(plot.drawing)) for title, plot in found.items()}
    for picture in pictures.values():
        assert not re.search(r"<(script|img|svg onload|b>)", picture.removeprefix("<svg "))
        assert "\u202e" not in picture
    assert "&lt;b&gt;\\u202exx" in pictures["Hosts"]


def test_long_labels_keep_begin_and_end():
    """A host's end says whose it is; the tip has all of it."""
    host = "images.a-very-long-name.cdn.example"
    picture = str(compared_svg(Bars("hosts", (("", (Share(host, 0.5, 0.0004),)),))))
    assert ">images.a-…dn.example<" in picture
    assert f"<title>{host}: 50.0 → &lt;0.1 %</title>" in picture
