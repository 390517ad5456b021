"""Extra captions: removed copies lend their captions to the pair that stays, and nothing else
changes.
"""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.compress import compress
from curate.dataset import Dataset
from curate.extra_captions import COPIES, MOST, extra_captions
from curate.trainers.vocabulary import learn_from_pool
from schemas.configs import AllSelector, ChooseCaption, DedupConfig, HfCaptioner
from tests.stored import parts_of
from tests.tiny import Placement, Row, tiny_dataset, whole

KEPT = Row("kept", "A dog", scores={"clip": {"clip_score": 0.1}}, generated={"hf": [("new", 0.2)]})
SAID = [
    "a  DOG ",
    "A dog runs",
    "a dog\tRUNS",
    "Ein Hund auf der Straße",
    "ein hund auf der STRASSE",
]
GONE = [*(Row(f"gone{i}", text) for i, text in enumerate([*SAID, None, "  "]))]
ALONE = Row("alone", "a cat")


def removed(pairs: list[tuple[Row, Row]], finder: str = "exact") -> pa.Table:
    """(who goes, who stays) as dedup hands it over."""
    columns = [[a.uid for a, _ in pairs], [b.uid for _, b in pairs], [finder] * len(pairs)]
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.table(arrays, names=["uid", "duplicate_of", "finder"])


def lend(data: Dataset, pairs: list[tuple[Row, Row]], state: str = "1") -> Dataset:
    """What dedup does with captions_copies."""
    claim = data.claim(COPIES, DedupConfig(), of=("urls",), artifact=state, revisable=True)
    extra_captions(data, removed(pairs), claim)
    data.publish(claim)
    return data


def dataset(rows: list[Row], parts: int | Placement = 3) -> Dataset:
    return tiny_dataset(f"memory://{uuid.uuid4().hex}", rows, parts)


def lent(data: Dataset) -> list[tuple[str, str, str]]:
    return [(r["uid"], r["caption_id"], r["caption"]) for r in whole(data, COPIES)]


def by_hand(kept: Row, gone: list[Row]) -> list[tuple[str, str, str]]:
    """The rule word by word."""
    said, found = {"", " ".join((kept.caption or "").casefold().split())}, []
    for row in sorted(gone, key=lambda row: row.uid):
        text = " ".join((row.caption or "").casefold().split())
        if text not in said and len(found) < MOST:
            said.add(text)
            found.append((kept.uid, row.uid, row.caption or ""))
    return found


def test_a_kept_pair_gets_what_its_copies_say():
    """Only what differs in more than case and white space, from it and from each other; empty
    captions never; a pair without copies gets nothing.
    """
    data = lend(dataset([KEPT, ALONE, *GONE]), [(row, KEPT) for row in GONE])
    assert lent(data) == by_hand(KEPT, GONE)
    assert len(lent(data)) == 2
    row = whole(data, COPIES)[0]
    assert (row["origin"], row["generator"]) == ("copy", "exact")
    others = ("parent_id", "prompt_hash", "decode", "seed", "spans", "error")
    assert all(row[name] is None for name in others)
    assert sorted(data.parts(COPIES)) == sorted(data.parts("urls"))


def test_at_most_sixteen_captions_the_lowest_uids_first():
    """A viral image does not drown its pair."""
    gone = [Row(f"g{i}", f"caption {i % 30}") for i in range(60)]
    data = lend(dataset([KEPT, *gone]), [(row, KEPT) for row in gone])
    assert lent(data) == sorted(by_hand(KEPT, gone))
    assert len(lent(data)) == MOST


def test_order_and_parts_change_nothing():
    """Other parts and another order of what was removed give the same rows."""
    keepers = [Row(f"kept{i}", f"keeper {i}") for i in range(4)]
    gone = [Row(f"gone{i}", f"copy {i // 2}") for i in range(40)]
    pairs = [(row, keepers[i % 4]) for i, row in enumerate(gone)]
    mixed = random.Random(0).sample(pairs, len(pairs))
    first = lent(lend(dataset([*keepers, *gone], 2), pairs))
    assert first == lent(lend(dataset([*keepers, *gone], 5), mixed))
    assert {uid for uid, _, _ in first} == {row.uid for row in keepers}


def test_a_second_run_changes_nothing(tmp_path: Path):
    """The same state writes no part and publishes no version; another one does."""
    data = lend(tiny_dataset(tmp_path, [KEPT, *GONE]), [(row, KEPT) for row in GONE])
    before, version = parts_of(data, COPIES), data.at
    again = lend(Dataset(str(tmp_path)), [(row, KEPT) for row in GONE])
    assert (parts_of(again, COPIES), again.at) == (before, version)
    assert lent(lend(Dataset(str(tmp_path)), [], state="2")) == []


def test_without_removed_pairs_the_parts_are_empty():
    """The table is there, a part per part of urls, without rows."""
    data = lend(dataset([KEPT, ALONE]), [])
    assert lent(data) == []
    assert sorted(data.parts(COPIES)) == sorted(data.parts("urls"))


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (ChooseCaption(), ["A dog"]),
        (ChooseCaption(use="generated"), ["new"]),
        (ChooseCaption(use="best", by="clip"), ["new"]),
        (ChooseCaption(use="all"), ["A dog", "A dog runs", "new"]),
    ],
)
def test_only_all_takes_the_captions_of_copies(choose, expected):
    """Original, generated and best stay what they were; with `all` the weights sum to 1."""
    gone = Row("gone", "A dog runs")
    data = lend(dataset([KEPT, gone]), [(gone, KEPT)])
    compress(data, [AllSelector()], choose)
    row = next(r for r in whole(data, "subset_all") if r["uid"] == KEPT.uid)
    assert [c["text"] for c in row["captions"]] == expected
    assert [c["weight"] for c in row["captions"]] == pytest.approx(
        [1 / len(expected)] * len(expected)
    )


def test_no_captioner_is_named_copies():
    """Its table would be taken for the captions of removed copies."""
    with pytest.raises(ValidationError, match=r"'copies' is taken: .*give the captioner another"):
        HfCaptioner(name="copies", model="m")


def test_the_words_of_the_pool_are_counted_once():
    """A vocabulary learned from the pool is the same with and without captions_copies."""
    data = dataset([KEPT, *GONE])
    before = learn_from_pool(data, 64).words
    assert learn_from_pool(lend(data, [(row, KEPT) for row in GONE]), 64).words == before
