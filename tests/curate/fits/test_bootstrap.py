"""bootstrap: models of the pool itself, none of which has seen what it scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.fits import bootstrap
from curate.fits.bootstrap import drawn_fold, folds_of
from curate.score import score
from models.bootstrap import fold_of
from schemas.configs import BootstrapScorer
from schemas.tables import uid_of
from tests.gallery import shape
from tests.stored import BROKEN, SMALL, Stored, add_pairs, discs, parts_of, stored
from tests.tiny import whole

CAPTIONS = st.sampled_from(["a dog", "A DOG", " a dog\n", "Straße", "STRASSE", "b", "c", "d", "e"])
PAIRS = st.lists(st.tuples(st.sampled_from("stuvwxyz"), CAPTIONS), max_size=14)


def uids_of(count: int) -> list[str]:
    return [uid_of(f"http://a/{i}", "c") for i in range(count)]


def lowest_of_groups(uids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The lowest uid that each pair is joined with, by repeating until nothing changes."""
    names = [(image, caption.strip().casefold()) for image, caption in pairs]
    lowest, before = list(uids), []
    while lowest != before:
        before = list(lowest)
        for i, mine in enumerate(names):
            for j, other in enumerate(names):
                if mine[0] == other[0] or mine[1] == other[1]:
                    lowest[i] = min(lowest[i], before[j])
    return lowest


# --------------------------------------------------------------------------- who is in which fold


@given(pairs=PAIRS, folds=st.integers(2, 5), seed=st.integers(0, 9))
def test_pairs_that_share_an_image_or_a_caption_share_their_fold(pairs, folds, seed):
    """However long the chain between them; a group goes where its lowest uid is drawn to."""
    uids = uids_of(len(pairs))
    found = folds_of(uids, [p[0] for p in pairs], [p[1] for p in pairs], folds, seed)
    lowest = lowest_of_groups(uids, pairs)
    assert found == [drawn_fold(seed, uid, folds) for uid in lowest]


@given(pairs=PAIRS, order=st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_no_fold(pairs, order):
    """Shuffled rows have the folds that they had."""
    rows = [(uid, *pair) for uid, pair in zip(uids_of(len(pairs)), pairs, strict=True)]
    shuffled = order.sample(rows, len(rows))

    def by_uid(some):
        columns = [[row[at] for row in some] for at in range(3)]
        return dict(zip(columns[0], folds_of(*columns, 3, 0), strict=True))

    assert by_uid(rows) == by_uid(shuffled)


@given(seed=st.integers(0, 1000), folds=st.integers(2, 5))
def test_no_fold_of_a_reasonable_pool_is_empty(seed, folds):
    """Two hundred pairs of their own spread over all folds, none with more than twice its share."""
    uids = uids_of(200)
    found = folds_of(uids, uids, uids, folds, seed)
    sizes = [found.count(fold) for fold in range(folds)]
    assert min(sizes) > 200 / folds / 2
    assert max(sizes) < 200 / folds * 2


# ------------------------------------------------------------------------------ the models


def fitted(data: Dataset, config: BootstrapScorer = SMALL) -> Path:
    return Path(data.path, "_artifacts", config.name, bootstrap.fit(data, config))


def models(folder: Path) -> list[bytes]:
    return [fold_of(folder, fold).read_bytes() for fold in range(SMALL.folds)]


def plan(folder: Path) -> dict[str, int]:
    rows = pq.read_table(folder / "folds.parquet").to_pydict()
    return dict(zip(rows["uid"], rows["fold"], strict=True))


def test_a_lost_fold_alone_is_trained_again(tmp_path: Path):
    """A killed fit goes on where it stopped, to the same bytes."""
    data = stored(tmp_path, discs(16))
    folder = fitted(data)
    before, kept = models(folder), fold_of(folder, 0).stat().st_mtime_ns
    assert before[0] != before[1]
    fold_of(folder, 1).unlink()
    assert fitted(data) == folder
    assert models(folder) == before
    assert fold_of(folder, 0).stat().st_mtime_ns == kept


def test_neither_parts_nor_place_change_a_model(tmp_path: Path):
    """The same pairs in other parts and elsewhere give the same weights and folds."""
    one = fitted(stored(tmp_path / "one", discs(16), parts=1))
    other = fitted(stored(tmp_path / "other", discs(16), parts=3))
    assert models(one) == models(other)
    assert plan(one) == plan(other)


def test_a_model_does_not_see_its_fold(tmp_path: Path):
    """Other images in fold 0: its model is the same to the bit, the other one is not."""
    pairs = discs(16)
    folder = fitted(stored(tmp_path / "one", pairs))
    held_out = {uid for uid, fold in plan(folder).items() if fold == 0}
    changed = [
        Stored(p.url, p.caption, shape(500 + i)) if p.uid in held_out else p
        for i, p in enumerate(pairs)
    ]
    other = fitted(stored(tmp_path / "other", changed))
    assert plan(other) == plan(folder)
    assert models(other)[0] == models(folder)[0]
    assert models(other)[1] != models(folder)[1]


def test_copies_are_held_out_together(tmp_path: Path):
    """Each pair's fold in its scores is that of all pairs with its image or its caption."""
    pairs = discs(12)
    copies = [Stored(f"{p.url}?copy", f"another text of {p.url}", p.image) for p in pairs[:6]]
    named = [
        Stored(f"{p.url}?as", f" {p.caption.upper()} ", shape(90 + i))
        for i, p in enumerate(pairs[:6])
    ]
    data = stored(tmp_path, pairs + copies + named)
    score(data, [SMALL])
    fold = {row["uid"]: row["fold"] for row in whole(data, "scores_bootstrap")}
    for original, copy, other in zip(pairs, copies, named, strict=False):
        assert fold[original.uid] == fold[copy.uid] == fold[other.uid]
    assert set(fold.values()) == {0, 1}


# ---------------------------------------------------------------------------- pools it cannot learn


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        discs(3),
        [
            *discs(3),
            *(
                Stored(f"http://b/{i}", text, shape(i))
                for i, text in enumerate((None, " \t\n", "\u2003"))
            ),
        ],
    ],
    ids=["none", "three", "without-words"],
)
def test_a_pool_that_is_too_small_is_refused(tmp_path: Path, pairs):
    """Fewer pairs with a caption than two per fold: the error counts them and says what to use."""
    data = stored(tmp_path, pairs)
    n = min(len(pairs), 3)
    with pytest.raises(
        ValueError, match=rf"'bootstrap' .* {n} downloaded pairs .* 4 are the least"
    ):
        bootstrap.fit(data, SMALL)


def test_a_pool_of_one_caption_is_refused(tmp_path: Path):
    """All pairs in one fold leave nothing to train on: the error says what joined them."""
    data = stored(tmp_path, [Stored(p.url, "click to enlarge", p.image) for p in discs(9)])
    with pytest.raises(ValueError, match=r"of the 9 pairs .*, 9 are in fold \d, joined by equal"):
        bootstrap.fit(data, SMALL)


# ------------------------------------------------------------------------------ later pairs


@pytest.mark.parametrize("refit", ["frozen", "every_version"])
def test_a_second_batch_is_scored_by_the_old_or_by_new_models(tmp_path: Path, refit: str):
    """Frozen keeps the artifact and the first parts; every_version trains anew for all parts."""
    config = SMALL.model_copy(update={"refit": refit})
    data = stored(tmp_path, discs(16))
    score(data, [config])
    before, key = parts_of(data, "scores_bootstrap"), data.artifact_in_use("scores_bootstrap")
    add_pairs(data, {2: discs(6, start=16)})
    score(data, [config])
    assert data.rows("scores_bootstrap") == 22
    kept = {n: b for n, b in parts_of(data, "scores_bootstrap").items() if n in before}
    assert (kept == before) == (refit == "frozen")
    assert (data.artifact_in_use("scores_bootstrap") == key) == (refit == "frozen")
    assert not any(row["error"] for row in whole(data, "scores_bootstrap"))


def test_a_pair_outside_the_sample_goes_with_its_copy(tmp_path: Path):
    """By its image, else by its caption, else by its own draw; a sample is in all folds alike."""
    config = SMALL.model_copy(update={"max_pairs": 30})
    originals = discs(40)
    by_image = [Stored(f"{p.url}?i", f"the image of {p.url}", p.image) for p in originals]
    by_text = [
        Stored(f"{p.url}?t", f"{str(p.caption).title()} \n", shape(100 + i))
        for i, p in enumerate(originals)
    ]
    data = stored(
        tmp_path, [*originals, *by_image, *by_text, Stored("http://a/b", "broken", BROKEN)]
    )
    folder = fitted(data, config)
    sampled = plan(folder)
    assert len(sampled) == 30
    assert set(sampled.values()) == {0, 1}
    found: dict[str, int] = {}
    for part in data.parts("samples"):
        uids = data.read("samples", part)["uid"].to_pylist()
        columns = bootstrap.columns(data, config, folder.name, part)
        found |= dict(zip(uids, columns["bootstrap__fold"], strict=True))
    assert {uid: found[uid] for uid in sampled} == sampled
    followed = [p for p in zip(originals, by_image, by_text, strict=True) if p[0].uid in sampled]
    assert len(followed) > 3
    for original, image, text in followed:
        assert found[image.uid] == found[text.uid] == sampled[original.uid]
    alone = [
        p
        for p in zip(originals, by_image, by_text, strict=True)
        if not any(x.uid in sampled for x in p)
    ]
    assert len(alone) > 3
    for pair in (pair for group in alone for pair in group):
        assert found[pair.uid] == drawn_fold(0, pair.uid, 2)
