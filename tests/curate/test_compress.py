"""compress: exact sizes, order-free selections, and the captions that training sees."""

from __future__ import annotations

import logging
import math
import uuid
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from schemas.configs import (
    AllSelector,
    ChooseCaption,
    ClusterSelector,
    RandomSelector,
    SelectorConfig,
    TopSelector,
    Workers,
)
from schemas.tables import draw
from tests.tiny import Row, add_table, by_url, tiny_dataset, whole

ORIGINAL = ChooseCaption()


def memory_root() -> str:
    return f"memory://{uuid.uuid4().hex}"


def scored(*values: float | None) -> list[Row]:
    return [
        Row(f"http://a/{i}", scores={"clip": {"clip_score": value}})
        for i, value in enumerate(values)
    ]


def subset(data: Dataset, name: str) -> list[str]:
    """The uids of a subset in the order of their rank, which counts from 0."""
    rows = sorted(whole(data, f"subset_{name}"), key=lambda row: row["rank"])
    assert [row["rank"] for row in rows] == list(range(len(rows)))
    return [row["uid"] for row in rows]


def selected(rows: list[Row], *configs: SelectorConfig, parts: int = 2) -> list[str]:
    """What the last selector selects."""
    data = tiny_dataset(memory_root(), rows, parts)
    compress(data, configs, ORIGINAL)
    return subset(data, configs[-1].name)


ROWS = st.lists(
    st.tuples(
        st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.just(float("nan")),
        st.booleans(),
        st.sampled_from(["success", "success", "failed_to_download"]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]), st.integers(0, 4), st.integers(0, 3))
def test_selections_equal_a_sort_by_hand(drawn, fraction, salt, seed):
    """Random and top are the first floor(N f) of a sort, for any placement; decisions_select
    drops the other survivors."""
    rows = [
        Row(f"http://a/{i}", scores={"clip": {"clip_score": v}}, keep=keep, status=status)
        for i, (v, keep, status) in enumerate(drawn)
    ]
    data = tiny_dataset(memory_root(), rows, by_url(1 + salt, salt))
    configs = (
        RandomSelector(fraction=fraction, seed=seed),
        TopSelector(fraction=fraction, by="scores_clip__clip_score"),
        AllSelector(),
        AllSelector(name="everything", pool="downloaded"),
    )
    compress(data, configs, ORIGINAL)
    downloaded = [r for r in rows if r.status == "success"]
    survivors = [r for r in downloaded if r.keep]
    count = int(len(survivors) * Fraction(str(fraction)))
    drawn_first = sorted((r.uid for r in survivors), key=lambda uid: (draw(seed, uid), uid))
    assert subset(data, "random") == drawn_first[:count]
    values = {r.uid: r.scores["clip"]["clip_score"] for r in survivors}
    known = [uid for uid, value in values.items() if value is not None and not math.isnan(value)]
    assert subset(data, "top") == sorted(known, key=lambda uid: (-values[uid], uid))[:count]
    assert subset(data, "all") == sorted(r.uid for r in survivors)
    assert subset(data, "everything") == sorted(r.uid for r in downloaded)
    dropped = {r.uid for r in survivors} - set(drawn_first[:count])
    assert whole(data, "decisions_select") == [
        {
            "uid": uid,
            "keep": uid not in dropped,
            "reason": "not selected by random" if uid in dropped else None,
        }
        for uid in sorted(r.uid for r in rows)
    ]
    assert set(data.parts("subset_top")) == set(data.parts("urls"))


@pytest.mark.parametrize(
    ("rows", "fraction", "count"), [(10, 0.3, 3), (10, 0.7, 7), (100, 0.29, 29), (7, 1.0, 7)]
)
def test_a_fraction_is_read_as_it_is_written(rows, fraction, count):
    """0.29 of 100 is 29, though 100 * 0.29 is 28.999... in binary."""
    assert len(selected(scored(*[0.1] * rows), RandomSelector(fraction=fraction))) == count


def test_unscored_pairs_never_pass_and_the_shortage_is_logged(caplog):
    """Top gives only pairs with a value, even where that makes fewer than asked."""
    rows = scored(0.5, None, float("nan"), 0.7)
    with caplog.at_level(logging.WARNING):
        found = selected(rows, TopSelector(count=3, by="scores_clip__clip_score"))
    assert found == [rows[3].uid, rows[0].uid]
    assert "selector top: 3 pairs were asked for, 2 can be had" in caplog.text


def test_a_count_above_the_pool_takes_all_and_says_so(caplog):
    """More than there is means all there is, with a warning."""
    with caplog.at_level(logging.WARNING):
        assert len(selected(scored(0.1, 0.2), RandomSelector(count=5))) == 2
    assert "5 pairs were asked for, 2 can be had" in caplog.text


def test_ties_at_the_cut_are_broken_by_uid():
    """Of equal scores, the lowest uids are taken, and no more than asked."""
    rows = scored(*[0.5] * 9)
    lowest = sorted(row.uid for row in rows)[:4]
    assert selected(rows, TopSelector(count=4, by="scores_clip__clip_score")) == lowest


def test_like_takes_as_many_as_another_subset():
    """A control of the size of a selection that comes earlier."""
    top = TopSelector(count=3, by="scores_clip__clip_score")
    like = RandomSelector(like="top", pool="downloaded")
    assert len(selected(scored(*[0.1] * 8), top, like)) == 3


@pytest.mark.parametrize("like", ["later", "nowhere", "random"])
def test_like_has_to_come_earlier(like):
    """A subset that is not there yet, or is itself, is an error that lists those that are."""
    configs = [AllSelector(), RandomSelector(like=like), AllSelector(name="later")]
    with pytest.raises(
        ValueError, match=f"'random': like: '{like}' is no subset .* there are all;"
    ):
        selected(scored(0.1), *configs)


def test_seeds_draw_differently_and_alike_themselves():
    """Another seed is another subset; the same seed is the same one."""
    rows = scored(*[0.1] * 40)
    first, second, again = (
        selected(rows, RandomSelector(count=10, seed=seed), parts=parts)
        for seed, parts in [(0, 1), (1, 2), (0, 3)]
    )
    assert first == again != second


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("scores_clip__score", r"'top': by: 'scores_clip__score' .* are scores_clip__clip_score"),
        ("urls__url", "'top': by: 'urls__url' is VARCHAR, not a number"),
    ],
)
def test_a_wrong_column_is_named(by, message):
    """Top by a column that is not there, or is no number, says what there is."""
    with pytest.raises(ValueError, match=message):
        selected([*scored(0.1)], TopSelector(count=1, by=by))


def captions(rows: list[Row], choose: ChooseCaption) -> dict[str, list[tuple[str, float]]]:
    """(text, weight) by URL."""
    data = tiny_dataset(memory_root(), rows)
    compress(data, [AllSelector()], choose)
    urls = {row.uid: row.url for row in rows}
    for row in whole(data, "subset_all"):
        originals = [c["text"] for c in row["captions"] if c["caption_id"] == row["uid"]]
        assert len(originals) <= 1
    return {
        urls[row["uid"]]: [(c["text"], round(c["weight"], 4)) for c in row["captions"]]
        for row in whole(data, "subset_all")
    }


CAPTIONED = [
    Row(
        "two",
        "raw",
        scores={"clip": {"clip_score": 0.2}},
        generated={"hf": [("low", 0.1), ("high", 0.9)]},
    ),
    Row("none", "alone", scores={"clip": {"clip_score": None}}),
    Row("unscored", "raw", scores={"clip": {"clip_score": 0.1}}, generated={"hf": [("new", None)]}),
    Row("empty", None, scores={"clip": {"clip_score": None}}, generated={"hf": [("named", 0.0)]}),
]


@pytest.mark.parametrize(
    ("choose", "two", "unscored", "empty"),
    [
        (ChooseCaption(), [("raw", 1)], [("raw", 1)], [("", 1)]),
        (
            ChooseCaption(use="generated"),
            [("low", 0.5), ("high", 0.5)],
            [("new", 1)],
            [("named", 1)],
        ),
        (ChooseCaption(use="best", by="clip"), [("high", 1)], [("raw", 1)], [("named", 1)]),
        (
            ChooseCaption(use="all"),
            [("raw", 0.3333), ("low", 0.3333), ("high", 0.3333)],
            [("raw", 0.5), ("new", 0.5)],
            [("", 0.5), ("named", 0.5)],
        ),
        (
            ChooseCaption(use="concat", tokenizer="words", separator=" / "),
            [("raw / low", 0.5), ("raw / high", 0.5)],
            [("raw / new", 1)],
            [("named", 1)],
        ),
    ],
)
def test_the_chosen_captions(choose, two, unscored, empty):
    """Each choice does what it says; a pair without others keeps its own."""
    expected = {"two": two, "unscored": unscored, "empty": empty, "none": [("alone", 1)]}
    assert captions(CAPTIONED, choose) == expected


def test_a_selector_can_choose_for_itself():
    """Its own choice goes before the recipe's, whose token budget it takes; another choice leaves
    the selection as it was made.
    """
    rows = [Row("u", " ".join("abcdefgh"), generated={"hf": [("x y z", None)]})]
    data = tiny_dataset(memory_root(), rows)
    own = AllSelector(name="own", choose=ChooseCaption(use="concat"))
    recipe = ChooseCaption(use="generated", max_tokens=6, tokenizer="words")
    compress(data, [AllSelector(), own], recipe)
    texts = {n: whole(data, f"subset_{n}")[0]["captions"][0]["text"] for n in ("all", "own")}
    assert texts == {"all": "x y z", "own": "a b c; x y z"}
    other = own.model_copy(update={"choose": ChooseCaption()})
    compress(data, [AllSelector(), other], recipe)
    assert whole(data, "subset_own")[0]["captions"][0]["text"] == rows[0].caption


def test_best_by_a_scorer_that_has_not_run_is_an_error():
    """`by` has to name a scorer with scores, and the error lists them."""
    with pytest.raises(ValueError, match=r"by: 'itm' has no scores \(scores_itm\).*scores_clip"):
        captions(CAPTIONED, ChooseCaption(use="best", by="itm"))


def test_a_second_run_changes_nothing(tmp_path: Path):
    """Run again, no part and no artifact is written, and no version is published."""
    rows = [
        Row(f"u{i}", scores={"bootstrap": {"image_emb": [1.0 + i, 2.0, i % 3]}}) for i in range(12)
    ]
    configs = [RandomSelector(fraction=0.5), ClusterSelector(count=5), AllSelector()]
    compress(tiny_dataset(tmp_path, rows), configs, ORIGINAL)
    before = {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.[np][pa]*"))}
    version = Dataset(str(tmp_path)).at
    compress(Dataset(str(tmp_path)), configs, ORIGINAL)
    assert {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.[np][pa]*"))} == before
    assert Dataset(str(tmp_path)).at == version


def test_another_config_under_the_same_name_is_refused():
    """A subset remembers its selector; a change asks for another name."""
    data = tiny_dataset(memory_root(), scored(0.1, 0.2))
    compress(data, [RandomSelector(count=1)], ORIGINAL)
    with pytest.raises(ValueError, match="count: 1 -> 2"):
        compress(data, [RandomSelector(count=2)], ORIGINAL)


def test_other_captions_are_written_without_selecting_again(tmp_path: Path):
    """A changed choice of captions makes new parts from the selection that is there."""
    data = tiny_dataset(tmp_path, CAPTIONED)
    compress(data, [RandomSelector(count=2)], ORIGINAL)
    files, order = data.files("subset_random"), subset(data, "random")
    artifacts = sorted(tmp_path.rglob("selection.parquet"))
    compress(data, [RandomSelector(count=2)], ChooseCaption(use="all"))
    assert data.files("subset_random") != files
    assert subset(data, "random") == order
    assert sorted(tmp_path.rglob("selection.parquet")) == artifacts


@pytest.mark.slow
def test_ray_workers_select_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two Ray actors give the same subsets as this process."""
    monkeypatch.setattr("curate.engine.WORTH_WORKERS", 1)
    rows = [
        Row(f"u{i}", scores={"bootstrap": {"image_emb": [1.0 + i, 2.0, i % 3]}}) for i in range(40)
    ]
    here, there = tiny_dataset(tmp_path / "a", rows), tiny_dataset(tmp_path / "b", rows, 5)
    configs = [ClusterSelector(count=15), RandomSelector(like="cluster")]
    compress(here, configs, ORIGINAL)
    compress(there, configs, ORIGINAL, Workers(count=2))
    for name in ("subset_cluster", "subset_random", "decisions_select", "codes_cluster"):
        assert whole(here, name) == whole(there, name)


def test_a_changed_pool_is_selected_anew():
    """After quality has decided, the subset has survivors only, in the next generation of its
    parts.
    """
    rows = scored(*[0.1] * 10)
    data = tiny_dataset(memory_root(), rows)
    compress(data, [AllSelector()], ORIGINAL)
    decisions = {
        part: pa.table(
            {
                "uid": data.read("samples", part, ["uid"])["uid"],
                "keep": [True] + [False] * (entry.rows - 1),
                "reason": pa.array([None] + ["low_clip"] * (entry.rows - 1), pa.string()),
            }
        )
        for part, entry in data.parts("samples").items()
    }
    add_table(data, "decisions_quality", decisions, ("samples",))
    compress(data, [AllSelector()], ORIGINAL)
    assert len(subset(data, "all")) == len(decisions)
    assert {part.generation for part in data.parts("subset_all").values()} == {1}
    assert all(row["keep"] for row in whole(data, "decisions_select"))
