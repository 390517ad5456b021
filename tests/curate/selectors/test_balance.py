"""The balance selector: MetaCLIP's rule, entry by entry, at an exact size."""

from __future__ import annotations

import logging
import math
import uuid
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from curate.compress import compress
from curate.dataset import Dataset
from schemas.configs import BalanceSelector, ChooseCaption
from schemas.tables import draw
from tests.tiny import Row, by_url, tiny_dataset, whole


def cut(rows, config: BalanceSelector, parts: int = 2, salt: int = 0) -> Dataset:
    data = tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, by_url(parts, salt))
    compress(data, [config], ChooseCaption())
    return data


def chosen(data: Dataset) -> list[str]:
    """The uids of the subset by rank."""
    rows = sorted(whole(data, "subset_balance"), key=lambda row: row["rank"])
    assert all(row["cluster"] is None for row in rows)
    return [row["uid"] for row in rows]


def captioned(*captions: str | None) -> list[Row]:
    return [Row(f"http://a/{i}", caption) for i, caption in enumerate(captions)]


def listed(tmp_path, *entries: str) -> str:
    path = tmp_path / f"{uuid.uuid4().hex}.txt"
    path.write_text("\n".join(entries), encoding="utf-8")
    return str(path)


def matches(caption: str | None, entries) -> list[str]:
    """The rule as it is written: a padded entry is in the padded caption."""
    padded = caption or ""
    for mark in ",.;:?!`":
        padded = padded.replace(mark, f" {mark} ")
    return [entry for entry in entries if f" {entry} " in f" {padded} "]


def survivors(rows, entries, t: float, seed: int) -> set[str]:
    """MetaCLIP's loop: a pair stays if a matched entry passes its own Bernoulli(t / max(count,
    t))."""
    found = {row.uid: matches(row.caption, entries) for row in rows}
    count = Counter(entry for some in found.values() for entry in some)
    return {
        uid
        for uid, some in found.items()
        if any(draw(seed, f"{uid}\0{e}") < t / max(count[e], t) for e in some)
    }


def own(rows, least: int) -> set[str]:
    """Uni- and bigrams that so many captions have, each word with a letter or a digit."""
    count: Counter[str] = Counter()
    for row in rows:
        padded = row.caption or ""
        for mark in ",.;:?!`":
            padded = padded.replace(mark, f" {mark} ")
        words = [w if any(c.isalnum() for c in w) else None for w in padded.split(" ")]
        pairs = pairwise(words)
        count.update({w for w in words if w} | {f"{a} {b}" for a, b in pairs if a and b})
    return {term for term, n in count.items() if n >= least}


TEXT = st.text(alphabet="ab A,.`é ", max_size=14)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.none() | TEXT, min_size=1, max_size=10, unique=True),
    st.lists(st.text(alphabet="ab A.é", min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from([0.4, 1.0, 1.7, 3.0]),
    st.integers(0, 5),
)
@example(["a  b", "a b", "b,a", "aa b"], ["a b", "a", "b", "a  b"], 1.0, 0)
def test_it_equals_the_plain_loop(tmp_path, captions, entries, t, seed):
    """Substring matching and one Bernoulli per pair and entry, for any text and list."""
    rows, said = captioned(*captions), [e.strip() for e in entries if e.strip()] or ["a"]
    path = listed(tmp_path, *said)
    data = cut(rows, BalanceSelector(count=len(rows), metadata=path, t=t, seed=seed))
    assert set(chosen(data)) == survivors(rows, set(said), t, seed)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TEXT, min_size=3, max_size=12), st.integers(1, 3))
def test_the_pools_own_terms_are_its_frequent_uni_and_bigrams(captions, least):
    """Counted by captions; a word has a letter or a digit."""
    rows = captioned(*captions)
    data = cut(rows, BalanceSelector(count=len(rows), min_count=least, t=1.5))
    assert set(chosen(data)) == survivors(rows, own(rows, least), 1.5, 0)


HEAD, TAIL, SIZE = 900, 40, 60
POOL = captioned(
    *(f"a head photo {i}" for i in range(HEAD)),
    *(f"tail{i % TAIL} of {i}" for i in range(2 * TAIL)),
    *("nothing known", None),
)
ENTRIES = ("head", *(f"tail{i}" for i in range(TAIL)))


def test_the_tail_stays_and_the_head_is_capped_near_t(tmp_path):
    """Entries of two pairs each all stay at t = 50; of 900 with one, 50 within four standard
    deviations; a pair without an entry is out."""
    config = BalanceSelector(count=len(POOL), metadata=listed(tmp_path, *ENTRIES), t=50)
    found = set(chosen(cut(POOL, config)))
    assert {row.uid for row in POOL[HEAD:-2]} <= found
    assert not {row.uid for row in POOL[-2:]} & found
    head = len(found & {row.uid for row in POOL[:HEAD]})
    assert abs(head - 50) < 4 * math.sqrt(50 * (1 - 50 / HEAD))


def test_a_size_is_exact_and_what_the_right_t_leaves(tmp_path, caplog):
    """The pairs that survive first: those of MetaCLIP's loop at the t that it logs, and one more
    size adds one pair."""
    path = listed(tmp_path, *ENTRIES)
    with caplog.at_level(logging.INFO):
        found = chosen(cut(POOL, BalanceSelector(count=SIZE, metadata=path)))
    assert len(found) == SIZE
    least = {
        row.uid: min((draw(0, f"{row.uid}\0{e}") * n for e, n in _counts(row)), default=math.inf)
        for row in POOL
    }
    t = math.nextafter(least[found[-1]], math.inf)
    assert set(found) == survivors(POOL, ENTRIES, t, 0)
    assert f"982 pairs have an entry; t = {least[found[-1]]:.4g} leaves {SIZE}" in caplog.text
    assert chosen(cut(POOL, BalanceSelector(count=SIZE + 1, metadata=path)))[:SIZE] == found


def _counts(row: Row) -> list[tuple[str, int]]:
    return [(e, HEAD if e == "head" else 2) for e in matches(row.caption, ENTRIES)]


def test_runs_agree_and_seeds_differ(tmp_path):
    """The same for any placement and order of the list; another seed draws others."""
    path = listed(tmp_path, *ENTRIES)
    config = BalanceSelector(count=SIZE, metadata=path)
    first = chosen(cut(POOL, config, 1))
    assert first == chosen(cut(POOL[::-1], config, 4, salt=3))
    assert first != chosen(cut(POOL, config.model_copy(update={"seed": 1})))


def test_wordnets_lemmas_are_entries(tmp_path):
    """Of index.noun the first field of each line, underscores as blanks, its licence aside."""
    (tmp_path / "index.noun").write_text(
        "  1 This software and database is being provided to you\n"
        "hot_dog n 3 2 @ ~ 3 1 07697537 09886540 10211036  \n"
        "dog n 7 5 @ ~ #m #p %p 7 1 02084071 10114209\n"
    )
    rows = captioned("a hot dog", "two hot days", "my dog!", "software", "dogs")
    config = BalanceSelector(count=5, min_count=99, wordnet=str(tmp_path))
    assert set(chosen(cut(rows, config))) == {rows[0].uid, rows[2].uid}


def test_a_changed_list_selects_anew(tmp_path):
    """The file's content counts, not its name."""
    rows, path = captioned("a dog", "a cat"), tmp_path / "list.txt"
    path.write_text("dog")
    config = BalanceSelector(count=1, metadata=str(path))
    data = cut(rows, config)
    assert chosen(data) == [rows[0].uid]
    path.write_text("cat")
    compress(data, [config], ChooseCaption())
    assert chosen(data) == [rows[1].uid]


def test_a_list_that_cannot_be_read_or_is_empty_is_named(tmp_path):
    """With the knob and the path."""
    missing, empty = str(tmp_path / "no.txt"), listed(tmp_path, "", "  ")
    with pytest.raises(ValueError, match=r"'balance': metadata: .*no\.txt cannot be read"):
        cut(POOL, BalanceSelector(count=1, metadata=missing))
    with pytest.raises(ValueError, match=f"'balance': metadata: '{empty}' has no entry"):
        cut(POOL, BalanceSelector(count=1, metadata=empty))


def test_a_pool_without_terms_gives_an_empty_subset():
    """Nothing frequent is nothing matched."""
    assert chosen(cut(captioned("a", None), BalanceSelector(count=1))) == []
