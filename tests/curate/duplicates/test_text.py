"""The text finder: equal captions, near-equal ones by exact Jaccard, floods of one template."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.duplicates import sets
from curate.duplicates.ngrams import (
    LONGEST,
    bands_of,
    ngrams,
    normalised,
    promised_recall,
    signed,
)
from curate.duplicates.search import Scope
from curate.duplicates.sets import FLOOD, Sets, similar
from curate.duplicates.text import find
from schemas.configs import TextDuplicates
from schemas.tables import DUPLICATES
from tests.tiny import Placement, Row, add_table, samples_of, tiny_dataset, urls_of

Edge = tuple[str, str, float, bool]
CONFIG = TextDuplicates(threshold=0.5, ngram=2)


def dataset(rows: Sequence[Row], parts: int | Placement = 3) -> Dataset:
    return tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, parts)


def edges(scope: Scope, config: TextDuplicates) -> list[Edge]:
    """All buckets' edges: sorted in each, and none in two."""
    search, found = find(scope, config), []
    for bucket in range(search.buckets):
        rows = [tuple(row.values()) for row in search.edges(bucket).to_pylist()]
        assert rows == sorted(rows)
        found += rows
    assert len({row[:2] for row in found}) == len(found)
    return sorted(found)


def captions(count: int, seed: int = 0) -> list[str]:
    """Captions of few words, many of them near others."""
    rng = random.Random(seed)
    made: list[str] = []
    for _ in range(count):
        words = rng.choice(made).split() if made and rng.random() < 0.7 else []
        words = words or rng.choices("abcdefghijklmnop", k=rng.randint(1, 12))
        if rng.random() < 0.6:
            words[rng.randrange(len(words))] = rng.choice("qrstuvwxyz")
        made.append(" ".join(words))
    return made


def rows_of(texts: Iterable[str | None]) -> list[Row]:
    return [Row(f"u{i}", text) for i, text in enumerate(texts)]


def all_pairs(rows: Sequence[Row], config: TextDuplicates) -> dict[tuple[str, str], float]:
    """Every pair of different texts within the threshold and its similarity, by Python's sets of
    strings, no hash.
    """
    texts = {row.uid: normalised(row.caption) for row in rows}
    grams = {uid: ngrams(text, config.ngram) for uid, text in texts.items() if text}
    near = {}
    for a, b in combinations(sorted(grams), 2):
        shared = len(grams[a] & grams[b])
        similarity = shared / (len(grams[a]) + len(grams[b]) - shared)
        if similarity >= config.threshold and texts[a] != texts[b]:
            near[a, b] = similarity
    return near


def spread(found: Sequence[Edge], rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Every pair that the edges say is near: members of one star, or of two that share an edge."""
    star = {row.uid: {row.uid} for row in rows}
    for a, b, _, member in found:
        if member and star[a] is not star[b]:
            star[a] |= star[b]
            star |= dict.fromkeys(star[b], star[a])
    once = {id(own): own for own in star.values()}.values()
    pairs = {(min(p), max(p)) for own in once for p in combinations(own, 2)}
    for a, b, _, member in found:
        if not member:
            pairs |= {(min(x, y), max(x, y)) for x in star[a] for y in star[b]}
    return pairs


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_no_edge_is_wrong_and_as_many_are_found_as_the_bands_promise(threshold):
    """Against all pairs by Python's sets: every edge with its distance is among them, and at least
    the share that the S-curve gives for their similarities is found.
    """
    config = TextDuplicates(threshold=threshold, ngram=2)
    long = [
        f"{' '.join(f'w{k}x{i}' for i in range(9 + k))} {end}" for k in range(9) for end in "abcd"
    ]
    again = [" ".join([f"r{k} s{k}"] * times) for k in range(9) for times in (2, 3, 4)]  # 1.0
    rows = rows_of(dict.fromkeys([*captions(400), *long, *again]))
    near, found = all_pairs(rows, config), edges(Scope(dataset(rows)), config)
    assert {(a, b): pytest.approx(1 - d, abs=1e-6) for a, b, d, _ in found} == {
        pair: near[pair] for pair in near if pair in {row[:2] for row in found}
    }
    assert not any(member for *_, member in found)
    chances = np.array([promised_recall(config, s) for s in near.values()])
    spare = 4 * np.sqrt((chances * (1 - chances)).sum())
    assert len(near) > {0.5: 200, 0.8: 20, 1.0: 0}[threshold]
    assert len(near) >= len(found) >= chances.sum() - spare


@pytest.mark.parametrize(("threshold", "num_perm"), [(0.8, 128), (0.5, 64), (0.9, 256), (0.7, 32)])
def test_the_recall_of_the_bands_is_the_s_curve(threshold, num_perm):
    """Measured over 1500 pairs of sets of one similarity: what the docstring says, at least 0.9 at
    the threshold.
    """
    config = TextDuplicates(threshold=threshold, num_perm=num_perm, ngram=1)
    assert promised_recall(config, threshold) >= 0.9
    if (threshold, num_perm) == (0.8, 128):
        assert bands_of(config) == (17, 7)
        assert promised_recall(config, 0.8) == pytest.approx(0.98, abs=0.005)
    for share in (0.5, threshold, 0.95):
        texts, similarity = _pairs_of(share, 1500)
        table = signed([str(i) for i in range(len(texts))], texts, config)
        bands = np.array([table[f"band_{b}"].to_numpy() for b in range(bands_of(config)[0])])
        agree = (bands[:, 0::2] == bands[:, 1::2]).any(axis=0).mean()
        chance = promised_recall(config, similarity)
        assert agree == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 1500) ** 0.5 + 1e-3)


def _pairs_of(similarity: float, count: int) -> tuple[list[str], float]:
    """Captions of one-word grams, two and two of nearly this similarity, which is returned too."""
    own = round(20 * (1 - similarity) / (1 + similarity))
    texts = []
    for pair in range(count):
        shared = [f"s{pair}x{k}" for k in range(20 - own)]
        for side in "ab":
            texts.append(" ".join(shared + [f"{side}{pair}x{k}" for k in range(own)]))
    return texts, (20 - own) / (20 + own)


EQUAL = [
    ["A dog,  running!", "a DOG running", "\u200fa dog\u200e\u00a0running", "a\u2003dog; running."],
    ["ﬁve ﬂags", "five flags", "Five-flags"],
    ["😀 party 🎉", "😀  PARTY 🎉!"],
    ["كلب يجري", "«كلب يجري»"],
    ["東京タワー", "東京 タワー。"],
]


def test_equal_captions_are_stars_around_the_lowest_uid():
    """Case, punctuation, width, marks of direction and white space aside, in any script; what is
    empty then takes no part.
    """
    groups = [[Row(f"{g}/{i}", text) for i, text in enumerate(own)] for g, own in enumerate(EQUAL)]
    empty = rows_of([None, "", "  ", "...", "!?", "\u200e", "—"])
    found = edges(Scope(dataset([*empty, *(row for own in groups for row in own)])), CONFIG)
    uids = [sorted(row.uid for row in own) for own in groups]
    assert found == sorted((a, b, 0.0, True) for a, *others in uids for b in others)


def test_scripts_without_spaces_are_compared_by_character():
    """A Chinese, Japanese or Thai caption is as many words as characters."""
    assert ngrams(normalised("東京タワー"), 3) == {"東 京 タ", "京 タ ワ", "タ ワ ー"}
    assert normalised("red 東京 tower") == "red 東 京 tower"
    assert len(normalised("กรุงเทพ").split()) == 7
    texts = ["秋天的北京香山红叶风景照片高清壁纸", "秋天的北京香山红叶风景照片高清壁图"]
    rows = rows_of([*texts, "完全不同的一张照片"])
    found = edges(Scope(dataset(rows)), TextDuplicates())
    assert [(*sorted(r.uid for r in rows[:2]), False)] == [(a, b, m) for a, b, _, m in found]


def test_short_and_long_captions():
    """A caption shorter than an n-gram is its one n-gram; of a very long one the first are taken,
    and equality is still that of the whole.
    """
    assert ngrams("a dog", 3) == {"a dog"}
    assert ngrams("a b c d", 3) == {"a b c", "b c d"}
    long = " ".join(str(i) for i in range(1_000_000))
    assert len(ngrams(long, 3)) == LONGEST
    assert len(ngrams(" ".join(str(i) for i in range(LONGEST + 2)), 3)) == LONGEST
    rows = rows_of([long, f"{long} more", long.upper() + "."])
    found = edges(Scope(dataset(rows)), TextDuplicates())
    assert sorted((d, m) for *_, d, m in found) == [(0.0, False), (0.0, True)]


def test_what_was_not_downloaded_takes_no_part():
    """A failed pair has no edge, whatever its caption."""
    rows = [Row("a", "a red dog", "failed_to_download"), Row("b", "a red dog", "failed_to_resize")]
    assert edges(Scope(dataset([*rows, Row("c", "a red dog")])), CONFIG) == []


def test_order_parts_and_buckets_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """The same edges from other parts, other placement and many buckets."""
    rows = rows_of([*captions(150), *_flood(150, "end")])
    first = edges(Scope(dataset(rows, 1)), CONFIG)
    monkeypatch.setattr("curate.duplicates.search.ROWS", 200)
    monkeypatch.setattr(sets, "PAIRS", 50)
    monkeypatch.setattr(sets, "BLOCK", 64)
    assert edges(Scope(dataset(rows[::-1], 7)), CONFIG) == first
    assert len(first) > 150


def test_seeds_are_reproducible():
    """One seed gives the same signatures again, another one others."""
    texts = captions(50)
    uids = [str(i) for i in range(50)]
    assert signed(uids, texts, CONFIG) == signed(uids, texts, CONFIG)
    other = CONFIG.model_copy(update={"seed": 2})
    assert signed(uids, texts, CONFIG)["band_0"] != signed(uids, texts, other)["band_0"]


# ------------------------------------------------------------------------------------ floods


TEMPLATE = "stock photo of some nice red leather shoes for women on sale"


def _flood(count: int, where: str, start: int = 0) -> list[str]:
    """Captions of one template: near each other with the number at the end, far in the middle."""
    words = list(TEMPLATE.split())
    place = {"end": len(words), "middle": 6}[where]
    return [
        " ".join([*words[:place], f"n{i}", *words[place:]]) for i in range(start, start + count)
    ]


def test_a_flood_of_one_template_costs_its_length():
    """m captions that differ in the last word are m edges and those of about FLOOD that share no
    crowded band, not m * m / 2; all pairs that the edges stand for are within the threshold.
    """
    config = TextDuplicates(threshold=0.8)
    rows = rows_of([*_flood(800, "end"), TEMPLATE])
    found = edges(Scope(dataset(rows)), config)
    assert len(found) < len(rows) + FLOOD * FLOOD
    members = [row for row in found if row[3]]
    assert len(members) > 0.8 * len(rows)
    ends = [row[1] for row in members]
    assert len(ends) == len({*ends} - {row[0] for row in members})  # a star each, no chains
    pairs, near = spread(found, rows), all_pairs(rows, config)
    assert pairs <= set(near)
    assert len(pairs) > 0.95 * len(near)


def test_a_template_whose_captions_are_not_near_is_no_flood_and_costs_no_square(
    monkeypatch: pytest.MonkeyPatch,
):
    """With the number in the middle no two captions are near: no edge, and hardly a comparison,
    though thousands agree in bands.
    """
    compared = []
    plain = Sets.shared

    def counted(self: Sets, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        compared.append(len(left))
        return plain(self, left, right)

    monkeypatch.setattr(Sets, "shared", counted)
    rows = rows_of(_flood(4000, "middle"))
    assert edges(Scope(dataset(rows)), TextDuplicates(threshold=0.8)) == []
    assert sum(compared) < 20 * len(rows)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_large_groups_give_the_pairs_of_small_ones(share, monkeypatch: pytest.MonkeyPatch):
    """By popular grams and classes, or pair by pair: the same similar pairs with a fresh end."""
    rng = random.Random(3)
    drawn = (rng.sample(range(60), rng.randint(0, 4)) for _ in range(400))
    grams = [sorted([*some, 100, 101, 102]) for some in drawn]
    own = Sets.of(pa.chunked_array([pa.array(grams, pa.list_(pa.uint64()))]))
    group = np.repeat(np.arange(4), 100)
    fresh = np.tile(np.arange(100) < 100 * share, 4)
    expected = {
        (a, b): len({*grams[a]} & {*grams[b]}) / len({*grams[a]} | {*grams[b]})
        for a, b in combinations(range(400), 2)
        if group[a] == group[b] and (fresh[a] or fresh[b])
    }
    expected = {pair: near for pair, near in expected.items() if near >= 0.6}
    for flood, small in ((100, 64), (20, 10), (3, 1)):
        monkeypatch.setattr(sets, "FLOOD", flood)
        monkeypatch.setattr(sets, "SMALL", small)
        left, right, near = similar(own, group, fresh, 0.6)
        found = zip(zip(left.tolist(), right.tolist(), strict=True), near.tolist(), strict=True)
        assert dict(found) == expected
    assert bool(expected) == bool(share)


# ------------------------------------------------------------------------------------ increments


def publish(data: Dataset, found: Sequence[Edge], name: str) -> None:
    columns = list(zip(*found, strict=True)) or [[]] * 4
    names = ["uid", "other_uid", "distance", "member"]
    table = pa.Table.from_pydict(dict(zip(names, columns, strict=True)))
    table = table.append_column("method", pa.nulls(table.num_rows, pa.string()))
    add_table(data, name, {0: table.select(DUPLICATES.names).cast(DUPLICATES)}, ())


def grown(rows: Sequence[Row], part_of: Placement, config: TextDuplicates) -> list[Edge]:
    """The edges of a search per part, each over what came with it."""
    data = dataset([row for row in rows if part_of(row.uid) == 0], part_of)
    found: list[Edge] = []
    for part in sorted({part_of(row.uid) for row in rows}):
        own = sorted((r for r in rows if part_of(r.uid) == part), key=lambda row: row.uid)
        if part:
            add_part(data, part, own)
        new = edges(Scope(data, frozenset([part]) if part else None), config)
        fresh = {row.uid for row in own}
        assert all(a in fresh or b in fresh for a, b, *_ in new)
        found += new
        publish(data, found, f"duplicates_{config.name}")
    return found


def add_part(data: Dataset, part: int, rows: Sequence[Row]) -> None:
    add_table(data, "urls", {part: urls_of(rows)}, ())
    add_table(data, "samples", {part: samples_of(rows)}, ("urls",))


def placed(rows: Sequence[Row], parts: int, at: Callable[[int], int] | None = None) -> Placement:
    where = {row.uid: at(i) if at else i % parts for i, row in enumerate(rows)}
    return where.__getitem__


def test_searches_of_what_is_new_find_what_one_search_does():
    """Part after part, with copies of old texts: the same pairs are near as in one search, and
    every new edge has a fresh end.
    """
    texts = captions(150)
    rows = rows_of(texts + texts[::5])
    first = spread(edges(Scope(dataset(rows)), CONFIG), rows)
    assert spread(grown(rows, placed(rows, 3), CONFIG), rows) == first


def test_a_flood_that_goes_on_stays_cheap_and_sound():
    """Later captions of a template are edges to the star, new floods stars of their own, and all
    that the edges stand for is within the threshold.
    """
    config = TextDuplicates(threshold=0.8)
    rows = rows_of(_flood(660, "end"))
    at = placed(rows, 3, lambda i: 0 if i < 300 else 1 if i < 340 else 2)
    found = grown(rows, at, config)
    assert len(found) < 660 + 3 * FLOOD * FLOOD
    assert spread(found, rows) <= set(all_pairs(rows, config))
    leaders = {a for a, _, _, member in found if member}
    assert len(leaders) >= 2
    assert any({a, b} <= leaders for a, b, _, member in found if not member)


def test_signatures_are_made_once_per_part():
    """A second search of a grown pool writes those of its new part alone."""
    rows = rows_of(captions(30))
    data = dataset(rows, 2)
    find(Scope(data), CONFIG)
    unit = f"{data.path}/_artifacts/signatures_text"
    before = set(data.fs.find(unit))
    add_part(data, 2, rows_of(["something else entirely"]))
    find(Scope(data, frozenset([2])), CONFIG)
    new = {file.split("/")[-2] for file in set(data.fs.find(unit)) - before}
    assert len(new) == 2  # of the part, and the floods of this search
