"""dedup: which pairs of a group stay, whatever the order, the parts and the number of workers."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.dedup import Graph, dedup, walk
from schemas.configs import DedupConfig, ExactDuplicates, PerceptualDuplicates, Workers
from tests.tiny import Row, by_url, tiny_dataset, whole

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


def test_the_walk_uses_the_first_graph_that_has_a_kept_partner():
    """Verdicts are the number of the graph, -1 for a pair that stays or has no edge."""
    empty = np.array([], dtype=np.int64)
    exact = Graph(np.array([0, 0, -1, -1]), np.array([0, 0]), empty)
    near = Graph(np.array([0, 1, 2, -1]), np.array([0, 1, 3, 4]), np.array([1, 0, 2, 1]))
    assert walk([exact, near], 4).tolist() == [-1, 0, -1, -1]
    assert walk([near], 3).tolist() == [-1, 0, -1]
