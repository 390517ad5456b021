"""The codebook selector: topics found wherever their codes stand, exact shares, any placement."""

from __future__ import annotations

import logging
import uuid
from collections import Counter

import numpy as np
import pytest

from curate.compress import compress
from curate.dataset import Dataset
from schemas.configs import ChooseCaption, CodebookSelector
from schemas.tables import draw
from tests.planted import coded, nmi, pairs, planted
from tests.tiny import Row, whole

CODES, TOPICS = planted(4000)
PAIRS = pairs(4000)
FEW, FEW_TOPICS = planted(300, topics=5, codes=64, patches=30)
FEW_PAIRS = pairs(300)


def cut(rows, codes, config: CodebookSelector, parts: int = 2, salt: int = 0) -> Dataset:
    data = coded(f"memory://{uuid.uuid4().hex}", rows, codes, parts, salt)
    compress(data, [config], ChooseCaption())
    return data


def clusters(data: Dataset, rows: list[Row]) -> np.ndarray:
    """Each pair's cluster, -1 for none, in the order of the rows."""
    found = {row["uid"]: row["cluster"] for row in whole(data, "codes_codebook_clusters")}
    return np.array([-1 if found[row.uid] is None else found[row.uid] for row in rows])


def chosen(data: Dataset) -> set[str]:
    return {row["uid"] for row in whole(data, "subset_codebook")}


@pytest.mark.parametrize(
    ("knobs", "low", "high"),
    [
        ({"feature": "sqrt"}, 0.9, 1),
        ({"feature": "tfidf"}, 0.9, 1),
        ({"released_code": True}, 0, 0.15),
    ],
    ids=["sqrt", "tfidf", "released_code"],
)
def test_topics_are_found_wherever_their_codes_stand(knobs, low, high):
    """40 topics, 512 codes, a third of background, any layout: bags of codes find the topics,
    integer codes taken for coordinates find nothing."""
    config = CodebookSelector(fraction=0.25, clusters=40, **knobs)
    found = nmi(clusters(cut(PAIRS, CODES, config), PAIRS), TOPICS)
    assert low <= found <= high


@pytest.mark.parametrize("feature", ["sqrt", "tfidf"])
def test_the_numbers_of_codes_mean_nothing(feature):
    """Another numbering of the codebook gives the same clusters and the same subset."""
    other = np.random.default_rng(1).permutation(512)[CODES]
    config = CodebookSelector(fraction=0.25, clusters=40, feature=feature)
    first, second = cut(PAIRS, CODES, config), cut(PAIRS, other, config)
    assert nmi(clusters(first, PAIRS), clusters(second, PAIRS)) >= 0.99
    assert chosen(first) == chosen(second)


def test_each_cluster_gives_its_share_by_lowest_draw():
    """A quarter is a quarter of each cluster within one, its lowest draws, and exact in all."""
    data = cut(FEW_PAIRS, FEW, CodebookSelector(fraction=0.25, clusters=9, seed=3))
    by_cluster: dict[int, list[str]] = {}
    for row, cluster in zip(FEW_PAIRS, clusters(data, FEW_PAIRS), strict=True):
        by_cluster.setdefault(cluster, []).append(row.uid)
    kept = Counter(row["cluster"] for row in whole(data, "subset_codebook"))
    assert sum(kept.values()) == 75
    expected = set()
    for cluster, uids in by_cluster.items():
        assert abs(kept[cluster] - round(len(uids) / 4)) <= 1
        expected |= set(sorted(uids, key=lambda uid: draw(3, uid))[: kept[cluster]])
    assert chosen(data) == expected


def test_placement_changes_nothing():
    """Other parts and another order of rows give the same subset and the same clusters."""
    config = CodebookSelector(fraction=0.3)
    first = cut(FEW_PAIRS, FEW, config, parts=1)
    second = cut(FEW_PAIRS[::-1], FEW[::-1], config, parts=5, salt=2)
    assert whole(first, "subset_codebook") == whole(second, "subset_codebook")
    assert whole(first, "codes_codebook_clusters") == whole(second, "codes_codebook_clusters")


def test_a_flood_of_copies_keeps_no_more_than_its_share():
    """Of 90 copies of one image among 300 pairs, a quarter leaves a quarter, within one."""
    codes = FEW.copy()
    codes[:90] = np.random.default_rng(5).integers(0, 64, 30)
    data = cut(FEW_PAIRS, codes, CodebookSelector(fraction=0.25, clusters=9))
    copies = {row.uid for row in FEW_PAIRS[:90]}
    assert len(set(clusters(data, FEW_PAIRS)[:90])) == 1
    assert len(chosen(data) & copies) <= 0.25 * 90 + 1


def test_features_of_other_pairs_give_another_subset():
    """Codes that are dealt anew among the pairs change who is taken."""
    config = CodebookSelector(fraction=0.25, clusters=9)
    dealt = FEW[np.random.default_rng(2).permutation(300)]
    assert chosen(cut(FEW_PAIRS, FEW, config)) != chosen(cut(FEW_PAIRS, dealt, config))


def test_the_best_by_itm_come_first_and_are_counted(caplog):
    """Half of 300 by ITM are 150, ties by uid, unknown ones never; the subset is drawn of these."""
    values = [None if i % 10 == 0 else (i % 7) / 10 for i in range(300)]
    rows = [Row(f"http://a/{i}", scores={"itm": {"itm_prob": v}}) for i, v in enumerate(values)]
    config = CodebookSelector(fraction=0.5, clusters=5, itm_by="scores_itm__itm_prob")
    with caplog.at_level(logging.INFO):
        data = cut(rows, FEW, config)
    known = [(row.uid, value) for row, value in zip(rows, values, strict=True) if value is not None]
    best = [uid for uid, _ in sorted(known, key=lambda pair: (-pair[1], pair[0]))[:150]]
    assert chosen(data) == set(best)
    assert "150 of 300 pairs are in the top 0.5 by scores_itm__itm_prob" in caplog.text


def test_itm_by_that_is_not_there_is_named():
    """The knob, and the columns that there are."""
    config = CodebookSelector(fraction=0.5, itm_by="scores_itm__itm_prob")
    with pytest.raises(ValueError, match="'codebook': itm_by: 'scores_itm__itm_prob' is no column"):
        cut(FEW_PAIRS, FEW, config)


def test_a_pair_without_codes_is_never_selected():
    """Null, empty, or none that the sample has: no cluster; asking for all gives all others."""
    codes = [None, [], *FEW[2:]]
    data = cut(FEW_PAIRS, codes, CodebookSelector(count=300, clusters=4))
    assert chosen(data) == {row.uid for row in FEW_PAIRS[2:]}
    assert clusters(data, FEW_PAIRS)[:2].tolist() == [-1, -1]


def test_a_pool_without_codes_gives_an_empty_subset():
    """Nothing to cluster is nothing selected, by all features."""
    for knobs in ({}, {"feature": "tfidf"}, {"released_code": True}):
        data = cut(FEW_PAIRS[:3], [None] * 3, CodebookSelector(count=2, **knobs))
        assert chosen(data) == set()


def test_codes_that_are_not_there_are_named():
    """A captioner that has not run is an error that says which codes there are."""
    message = "codes: 'other' has made no codes_other; there are codes_codebook"
    with pytest.raises(ValueError, match=message):
        cut(FEW_PAIRS, FEW, CodebookSelector(count=2, codes="other"))


def test_clusters_are_made_anew_beside_the_codes():
    """A changed selector writes its own table again; the captioner's stays."""
    data = coded(f"memory://{uuid.uuid4().hex}", FEW_PAIRS, FEW)
    config = CodebookSelector(count=9, name="twice")
    compress(data, [config], ChooseCaption())
    other = CodebookSelector(count=9, name="twice", clusters=3)
    before = whole(data, "codes_codebook")
    data.drop("subset_twice")
    compress(data, [other], ChooseCaption())
    assert whole(data, "codes_codebook") == before
    assert {row["cluster"] for row in whole(data, "codes_twice_clusters")} == {0, 1, 2}


def test_released_code_says_what_it_is_for_and_wants_equal_lengths(caplog):
    """It warns, has at most as many clusters as rows, and refuses images of several lengths."""
    config = CodebookSelector(count=9, released_code=True)
    data = cut(FEW_PAIRS, FEW, config)
    assert "released_code is for comparison only" in caplog.text
    assert len(chosen(data)) == 9
    with pytest.raises(ValueError, match=r"an image has \d+ codes, another one"):
        cut(FEW_PAIRS, [FEW[0][:7], *FEW[1:]], config)
