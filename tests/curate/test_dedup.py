"""dedup: which pairs of a group stay, whatever the order, the parts and the number of workers."""

from __future__ import annotations

import uuid
from math import cos, radians, sin
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.dedup import dedup
from models.phash import fingerprint
from schemas.configs import (
    DedupConfig,
    EvaluationItems,
    ExactDuplicates,
    PerceptualDuplicates,
    SemanticDuplicates,
    Workers,
)
from tests.tiny import Made, Row, by_url, samples_of, tiny_dataset, urls_of, whole

BASE = 0xF0F0_A5A5_3C3C_9696
RADIUS = PerceptualDuplicates().radius
KEEP_BY = "samples__original_width * samples__original_height"


def flipped(*bits: int, of: int = BASE) -> int:
    """A hash that differs in these bits."""
    return of ^ sum(1 << b for b in bits)


def memory_root() -> str:
    return f"memory://{uuid.uuid4().hex}"


def reasons(data: Dataset) -> dict[str, str | None]:
    """reason by URL."""
    urls = {row["uid"]: row["url"] for row in whole(data, "urls")}
    return {urls[row["uid"]]: row["reason"] for row in whole(data, "decisions_dedup")}


def decided(
    rows: list[Row], config: DedupConfig | None = None, parts: int = 2
) -> dict[str, str | None]:
    data = tiny_dataset(memory_root(), rows, parts)
    dedup(data, config or DedupConfig())
    return reasons(data)


def brute_force(rows: list[Row], config: DedupConfig) -> dict[str, str | None]:
    """The rule word by word: walk the best first, keep unless a duplicate of a kept one."""
    taking_part = [
        r
        for r in rows
        if r.status == "success" and (r.keep is not False or config.among == "downloaded")
    ]
    if config.among == "survivors" and any(r.keep is not None for r in rows):
        taking_part = [r for r in taking_part if r.keep]
    kept: list[Row] = []
    found: dict[str, str | None] = {r.url: None for r in rows}
    for row in sorted(taking_part, key=lambda r: (-r.width * r.height, r.uid)):
        if any(k.sha256 is not None and k.sha256 == row.sha256 for k in kept):
            found[row.url] = "duplicate_exact"
        elif any(near(k, row) for k in kept):
            found[row.url] = "duplicate_perceptual"
        else:
            kept.append(row)
    return found


def near(a: Row, b: Row) -> bool:
    if a.phash is None or b.phash is None:
        return False
    return (a.phash ^ b.phash).bit_count() <= RADIUS


PAIRS = st.lists(
    st.builds(
        lambda copy, bits, width, status, keep: (copy, bits, width, status, keep),
        st.none() | st.integers(0, 3),
        st.none() | st.lists(st.integers(0, 20), max_size=8),
        st.integers(1, 4),
        st.sampled_from(["success", "success", "success", "failed_to_download"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=16,
)


def to_rows(drawn: list[tuple], with_quality: bool = True) -> list[Row]:
    return [
        Row(
            f"http://a/{i}",
            sha256=None if copy is None else f"{copy:064x}",
            phash=None if bits is None else flipped(*set(bits)),
            width=width,
            status=status,
            keep=keep if with_quality else None,
        )
        for i, (copy, bits, width, status, keep) in enumerate(drawn)
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PAIRS, st.sampled_from(["survivors", "downloaded"]), st.booleans(), st.integers(0, 5))
def test_decisions_equal_the_rule_walked_by_hand(drawn, among, with_quality, salt):
    """The stage decides as the rule says, for any pool, placement and choice of who takes part."""
    rows = to_rows(drawn, with_quality)
    config = DedupConfig(among=among)
    data = tiny_dataset(memory_root(), rows, by_url(1 + salt, salt))
    dedup(data, config)
    assert reasons(data) == brute_force(rows, config)
    assert len(whole(data, "decisions_dedup")) == len(rows)


def test_exact_copies_keep_the_best_one_and_name_the_reason():
    """Of five equal files the largest picture stays; the others say duplicate_exact."""
    rows = [Row(f"http://a/{i}", sha256="c" * 64, width=10 + i) for i in range(5)]
    found = decided(rows)
    assert found.pop("http://a/4") is None
    assert set(found.values()) == {"duplicate_exact"}


def test_equal_quality_keeps_the_lowest_uid():
    """Ties in keep_by are broken by uid."""
    rows = [Row(f"http://a/{i}", sha256="c" * 64) for i in range(5)]
    found = decided(rows)
    assert [url for url, reason in found.items() if reason is None] == [
        min(rows, key=lambda r: r.uid).url
    ]


def test_pairs_without_an_image_are_no_duplicates():
    """Failed downloads never form a group, and are not dropped by dedup."""
    rows = [Row(f"http://a/{i}", status="failed_to_download") for i in range(4)]
    assert set(decided(rows).values()) == {None}


CHAIN = {"a": flipped(), "b": flipped(*range(RADIUS)), "c": flipped(*range(2 * RADIUS))}


def chain(**widths: int) -> dict[str, str | None]:
    rows = [Row(name, phash=CHAIN[name], width=width) for name, width in widths.items()]
    return decided(rows)


def test_a_chain_with_the_best_in_the_middle_keeps_only_that():
    """A~B~C and A!~C: when B is the best, A and C are its duplicates."""
    assert chain(a=1, b=9, c=2) == {
        "a": "duplicate_perceptual",
        "b": None,
        "c": "duplicate_perceptual",
    }


def test_a_chain_with_the_best_at_an_end_keeps_both_ends():
    """A~B~C and A!~C: when A is the best, B goes and C stays, for its only partner is gone."""
    assert chain(a=9, b=1, c=2) == {"a": None, "b": "duplicate_perceptual", "c": None}


def test_pictures_that_differ_in_colour_alone_both_stay():
    """Equal hashes are not enough: three skin tones of one drawing are three pictures."""
    tones = [bytes((level, level // 2, 90)) * 64 for level in (60, 120, 180)]
    rows = [Row(f"http://a/{i}", phash=BASE, thumbnail=tone) for i, tone in enumerate(tones)]
    assert set(decided(rows).values()) == {None}
    alone = DedupConfig(finders=(PerceptualDuplicates(max_rms=None),))
    assert list(decided(rows, alone).values()).count("duplicate_perceptual") == 2


def test_exact_comes_before_perceptual():
    """A pair that is both an exact and a near copy of kept ones says duplicate_exact, in any order
    of the finders.
    """
    rows = [
        Row("best", phash=flipped(1), width=9),
        Row("twin", sha256="c" * 64, phash=BASE, width=5),
    ]
    rows[0] = Row("best", sha256="c" * 64, phash=flipped(1), width=9)
    config = DedupConfig(finders=(PerceptualDuplicates(), ExactDuplicates()))
    assert decided(rows, config) == {"best": None, "twin": "duplicate_exact"}


def test_equal_urls_are_found_when_asked_for():
    """Two captions of one URL are duplicates by url, with a reason and a table of their own."""
    rows = [
        Row("http://a/1", "one", width=5),
        Row("http://a/1", "two", width=9),
        Row("http://a/2", "one"),
    ]
    data = tiny_dataset(memory_root(), rows)
    dedup(data, DedupConfig(finders=(ExactDuplicates(by="url"),)))
    found = {row["uid"]: row["reason"] for row in whole(data, "decisions_dedup")}
    assert found == {rows[0].uid: "duplicate_url", rows[1].uid: None, rows[2].uid: None}
    assert [row["method"] for row in whole(data, "duplicates_url")] == ["url"]


def test_missing_and_nan_quality_sorts_last():
    """A pair without a score, or with NaN, represents its group only when nobody has one."""
    values = [None, float("nan"), 0.1]
    rows = [
        Row(f"http://a/{i}", sha256="c" * 64, scores={"clip": {"clip_score": v}})
        for i, v in enumerate(values)
    ]
    found = decided(rows, DedupConfig(keep_by="scores_clip__clip_score"), parts=1)
    assert found["http://a/2"] is None
    assert found["http://a/0"] == found["http://a/1"] == "duplicate_exact"


def test_a_flood_of_copies_makes_one_edge_each():
    """A thousand equal files are 999 exact and 999 perceptual edges, and one of them stays."""
    rows = [Row(f"http://a/{i}", sha256="c" * 64, phash=BASE) for i in range(1000)]
    data = tiny_dataset(memory_root(), rows)
    dedup(data, DedupConfig())
    assert data.rows("duplicates_exact") == data.rows("duplicates_perceptual") == 999
    assert sum(row["keep"] for row in whole(data, "decisions_dedup")) == 1
    lowest = min(row.uid for row in rows)
    assert {row["uid"] for row in whole(data, "duplicates_exact")} == {lowest}


@pytest.mark.parametrize(
    ("keep_by", "message"),
    [
        ("samples__with", r"keep_by: 'samples__with' .*samples__with"),
        ("width +", r"keep_by: 'width \+' .*syntax error"),
        ("urls__url", r"keep_by: 'urls__url' .*[Cc]o(uld not convert|nvert)"),
        ("decisions_dedup__keep", "decisions_dedup__keep"),
    ],
)
def test_a_wrong_keep_by_is_named_before_anything_is_searched(keep_by, message):
    """SQL that DuckDB refuses is an error with the expression and DuckDB's words."""
    data = tiny_dataset(memory_root(), [Row("x", sha256="c" * 64), Row("y", sha256="c" * 64)])
    with pytest.raises(ValueError, match=message):
        dedup(data, DedupConfig(keep_by=keep_by))


def test_a_second_run_changes_nothing(tmp_path: Path):
    """Run again, no file is written and no version is published."""
    rows = to_rows([(i % 3, [i], i, "success", True) for i in range(12)])
    data = tiny_dataset(tmp_path, rows)
    dedup(data, DedupConfig())
    before = {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.parquet"))}
    version = data.at
    dedup(Dataset(str(tmp_path)), DedupConfig())
    assert {p: p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("*.parquet"))} == before
    assert Dataset(str(tmp_path)).at == version


def test_a_changed_keep_by_decides_anew_without_searching_again(tmp_path: Path):
    """Another keep_by makes the next generation of the decisions and leaves the edges alone."""
    data = tiny_dataset(
        tmp_path, [Row("x", sha256="c" * 64, width=9), Row("y", sha256="c" * 64, width=1)]
    )
    dedup(data, DedupConfig())
    edges = data.files("duplicates_exact")
    dedup(data, DedupConfig(keep_by=f"-({KEEP_BY})"))
    assert reasons(data) == {"x": "duplicate_exact", "y": None}
    assert data.files("duplicates_exact") == edges


def test_no_samples_is_an_error_that_lists_the_tables():
    """Dedup before download says which tables there are."""
    with pytest.raises(ValueError, match="has no table 'samples'"):
        dedup(Dataset(memory_root()), DedupConfig())


@pytest.mark.slow
def test_ray_workers_decide_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two Ray actors give the same tables as this process."""
    monkeypatch.setattr("curate.engine.WORTH_WORKERS", 1)
    rows = to_rows([(i % 5, [i % 20], i % 4, "success", True) for i in range(40)])
    here, there = tiny_dataset(tmp_path / "a", rows), tiny_dataset(tmp_path / "b", rows, 5)
    dedup(here, DedupConfig())
    dedup(there, DedupConfig(), Workers(count=2))
    assert whole(here, "decisions_dedup") == whole(there, "decisions_dedup")
    assert whole(here, "duplicates_perceptual") == whole(there, "duplicates_perceptual")


def partners(data: Dataset) -> dict[str, str | None]:
    """URL of the pair that stays for it, by URL."""
    urls = {row["uid"]: row["url"] for row in whole(data, "urls")}
    return {
        urls[row["uid"]]: urls.get(row["duplicate_of"]) for row in whole(data, "decisions_dedup")
    }


def test_every_removed_pair_names_one_that_stays():
    """duplicate_of is kept itself, and near or equal to the removed pair."""
    rows = [
        *(Row(f"copy{i}", sha256="c" * 64, width=10 + i) for i in range(4)),
        Row("near", phash=flipped(1), width=5),
        Row("best", phash=flipped(), width=50),
        Row("alone", phash=flipped(*range(40, 60)), width=9),
    ]
    data = tiny_dataset(memory_root(), rows)
    dedup(data, DedupConfig())
    found = partners(data)
    assert found == {
        "copy0": "copy3",
        "copy1": "copy3",
        "copy2": "copy3",
        "copy3": None,
        "near": "best",
        "best": None,
        "alone": None,
    }


def test_only_find_writes_edges_and_removes_nobody():
    """The finder's table is there, and the pairs stay."""
    rows = [Row(f"http://a/{i}", sha256="c" * 64) for i in range(3)]
    data = tiny_dataset(memory_root(), rows)
    dedup(data, DedupConfig(finders=(ExactDuplicates(),), only_find=("exact",)))
    assert data.rows("duplicates_exact") == 2
    assert set(reasons(data).values()) == {None}


def batches(data: Dataset, rows: list[Row], part: int) -> None:
    """Add these rows as one more part."""
    for table, made, of in (("urls", urls_of(rows), ()), ("samples", samples_of(rows), ("urls",))):
        claim = data.claim(table, Made(name=table), of=of, append=not of, revisable=True)
        data.write(claim, part, made)
        data.publish(claim)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PAIRS, st.integers(0, 3))
def test_batch_after_batch_decides_as_all_at_once(drawn, salt):
    """New pairs are compared with all that are there; representatives are those of the union;
    earlier edges are neither searched nor written again.
    """
    rows = sorted(to_rows(drawn, with_quality=False), key=lambda row: row.uid)
    groups = [rows[i::3] for i in range(3)]
    first, *later = [g for g in groups[salt % 3 :] + groups[: salt % 3] if g]
    data = tiny_dataset(memory_root(), first, lambda uid: 0)
    config = DedupConfig(finders=(ExactDuplicates(), PerceptualDuplicates()))
    dedup(data, config)
    for part, some in enumerate(later, 1):
        before = set(data.files("duplicates_exact"))
        batches(data, some, part)
        dedup(data, config)
        assert before <= set(data.files("duplicates_exact"))
    assert reasons(data) == brute_force(rows, config)


def matched(folder: Path, pixels: np.ndarray) -> str:
    """An evaluation set of one image."""
    folder.mkdir()
    cv2.imwrite(str(folder / "item.png"), pixels)
    return str(folder)


def test_items_of_an_evaluation_set_go_first_and_represent_nobody(tmp_path: Path):
    """A pair that shows one is out with `evaluation_<name>`, though it is the best of its copies;
    the best of the others stays for them.
    """
    pixels = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    pixels = cv2.resize(pixels, (256, 192), interpolation=cv2.INTER_CUBIC)
    shown = fingerprint(np.ascontiguousarray(pixels[..., ::-1]))
    looks = {"phash": shown.phash, "thumbnail": shown.thumbnail}
    rows = [
        Row("shows it", sha256="a" * 64, width=90, **looks),
        Row("same bytes", sha256="a" * 64, width=50),
        Row("same bytes too", sha256="a" * 64, width=40),
    ]
    data = tiny_dataset(memory_root(), rows)
    held_out = EvaluationItems(name="held", path=matched(tmp_path / "set", pixels))
    dedup(data, DedupConfig(finders=(ExactDuplicates(),), evaluations=(held_out,)))
    assert reasons(data) == {
        "shows it": "evaluation_held",
        "same bytes": None,
        "same bytes too": "duplicate_exact",
    }
    (row,) = whole(data, "matches_held")
    assert (row["item"], row["method"]) == ("item.png", "phash")


def circle(*degrees: float) -> list[Row]:
    """Pairs with embeddings at these angles, the first the best."""
    return [
        Row(
            f"{angle}",
            width=1000 - at,
            scores={
                "clip": {"clip_score": 0.3, "image_emb": [cos(radians(angle)), sin(radians(angle))]}
            },
        )
        for at, angle in enumerate(degrees)
    ]


def semantic(**more) -> SemanticDuplicates:
    return SemanticDuplicates(embeddings="clip", clusters=1, **more)


def test_a_share_that_is_to_stay_lowers_eps():
    """The widest threshold that leaves so many is found among the edges' distances."""
    rows = circle(0, 3, 50, 56, 100, 109, 150, 162)
    wide = semantic(eps=1 - cos(radians(13)))
    for keep, gone in (
        (1.0, set()),
        (0.8, {"3"}),
        (0.7, {"3", "56"}),
        (0.5, {"3", "56", "109", "162"}),
    ):
        data = tiny_dataset(memory_root(), rows)
        dedup(data, DedupConfig(finders=(wide,), keep=keep))
        found = {url for url, reason in reasons(data).items() if reason}
        assert found == gone, keep


def test_semdedups_code_removes_by_its_own_order():
    """In `code` mode a pair goes when one before it is near, even one that went: of a chain only
    the first stays; `group` keeps both ends.
    """
    rows = circle(0, 10, 20, 40, 60)  # in the order of SemDeDup: 60, 0, 10, 40, 20
    eps = 1 - cos(radians(11))
    for mode, staying in (("group", {"0", "20", "40", "60"}), ("code", {"0", "40", "60"})):
        data = tiny_dataset(memory_root(), rows)
        dedup(data, DedupConfig(finders=(semantic(eps=eps, mode=mode),)))
        assert {url for url, reason in reasons(data).items() if reason is None} == staying


def test_captions_of_copies_become_captions_of_the_pair_that_stays():
    """An exact copy with another caption lends it; a semantic neighbour does not; None takes all
    of it back.
    """
    rows = [
        Row("best", "a dog", sha256="a" * 64, width=900),
        Row("copy", "a sleeping dog", sha256="a" * 64),
        Row("same", "A dog ", sha256="a" * 64),
    ]
    data = tiny_dataset(memory_root(), rows)
    dedup(data, DedupConfig(finders=(ExactDuplicates(),)))
    lent = [(row["uid"], row["caption"]) for row in whole(data, "captions_copies")]
    assert lent == [(rows[0].uid, "a sleeping dog")]
    dedup(data, DedupConfig(finders=(ExactDuplicates(),), extra_captions=False))
    assert "captions_copies" not in data.tables()
    dedup(data, DedupConfig(finders=(ExactDuplicates(),)))
    dedup(data, None)
    assert {t for t in data.tables() if "dup" in t or "copies" in t} == set()
