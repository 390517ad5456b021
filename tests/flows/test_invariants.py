"""What holds for the whole way, over the real stages: nothing vanishes, no order matters, nothing
is done twice, and nobody passes unseen.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from curate import versions
from curate.compress import compress
from curate.dataset import Dataset
from curate.dedup import dedup
from curate.download import download
from curate.filter import filter_pairs
from curate.funnel import funnel
from curate.query import query
from curate.score import score
from schemas.configs import ImageStatsScorer, IngestConfig
from tests.flows.conftest import Whole
from tests.flows.contents import (
    assert_equal_but_for_rounding,
    by_pair,
    contents,
    different,
    files,
    rows_of,
    shards,
)
from tests.flows.small_web import (
    SMALL,
    STAGES,
    SmallWeb,
    add,
    recipe,
    run_all,
    small_web,
    write_list,
)

LOST = ("unknown low_score", "unknown empty_words")
PER_PAIR = ("urls", "samples", "scores_image_stats")


@pytest.fixture
def own_web():
    """A web that the test may change."""
    with small_web() as running:
        yield running


# ------------------------------------------------------------------------------ conservation


def test_nothing_vanishes_at_any_stage(whole: Whole, tmp_path: Path):
    """After every stage: in = kept + dropped + failed, and `decisions` has every pair once."""
    for stage in STAGES:
        data = run_all(whole.recipe(tmp_path / "set", trained=False), stage)
        pairs = {row["uid"] for row in rows_of(data, "urls")}
        assert len(pairs) == len(whole.web.pairs)
        rows = funnel(data)
        assert rows[0].input == len(pairs)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            assert row.input == row.kept + row.dropped_count + row.failed_count
            assert following is None or following.input == row.kept
        decided = query(data, "SELECT uid, keep FROM decisions")
        assert sorted(decided["uid"].to_pylist()) == sorted(pairs)
        assert decided["keep"].to_pylist().count(True) == (
            rows[-1].kept if stage != "ingest" else 0
        )


def test_the_funnel_says_what_was_planted(whole: Whole, untrained: Dataset):
    """Dead links fail, copies and empty words are dropped, a server that answers late is heard."""
    rows = {row.stage: row for row in funnel(untrained)}
    assert rows["download"].failed == {
        "failed_to_download: HTTP Error 404: Not Found": 4,
        "failed_to_resize: Image decoding error": 1,
    }
    assert rows["quality"].dropped["empty_words"] == 1
    assert rows["quality"].failed == {"unknown empty_words": 1}
    assert set(rows["dedup"].dropped) == {"duplicate_exact", "duplicate_perceptual"}
    assert set(rows["select"].dropped) == {"not selected by picked"}
    (shy,) = [r for r in rows_of(whole.data, "samples") if r["uid"] == uid_of(whole, "/flaky/1")]
    assert (shy["status"], shy["attempts"]) == ("success", 2)


def uid_of(whole: Whole, path: str) -> str:
    url = whole.web.server.url(path)
    return next(row["uid"] for row in rows_of(whole.data, "urls") if row["url"] == url)


# ------------------------------------------------------------------------------ order and split


def test_the_order_of_the_list_changes_no_byte(whole: Whole, tmp_path: Path):
    """The same rows in another order: all parts, models, tars and shards are equal."""
    before = whole.list.read_bytes()
    try:
        write_list(whole.list, whole.web.pairs, shuffled=1)
        assert whole.list.read_bytes() != before
        shuffled = run_all(whole.recipe(tmp_path / "set"))
    finally:
        whole.list.write_bytes(before)
    assert different(contents(shuffled), contents(whole.data)) == []


def split(folder: Path, whole: Whole, cut: int, part_rows: int, trained: bool) -> Dataset:
    """A run over the list in two shuffled files."""
    pairs = whole.web.pairs
    lists = [
        write_list(folder / "a.csv", pairs[:cut], shuffled=cut),
        write_list(folder / "b.csv", pairs[cut:], shuffled=cut),
    ]
    batch = IngestConfig(path=[str(p) for p in lists], batch="first", part_rows=part_rows)
    return run_all(recipe(folder / "set", lists, whole.web, trained=trained, ingest=(batch,)))


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(cut=st.integers(1, 47), part_rows=st.integers(4, 60))
@example(cut=20, part_rows=10)
def test_neither_files_nor_parts_change_a_row(
    whole: Whole, untrained: Dataset, cut: int, part_rows: int
):
    """A list in two files, in any order, in parts of any size: the same rows of every table by uid,
    and the same shards byte for byte.
    """
    with tempfile.TemporaryDirectory() as folder:
        again = split(Path(folder), whole, cut, part_rows, trained=False)
        assert by_pair(again) == by_pair(untrained)
        assert different(shards(again), shards(untrained)) == []


def test_models_and_clusters_do_not_depend_on_parts(whole: Whole, tmp_path: Path):
    """What is fitted on the pool is the same for other files and parts, but for the last bits that
    depend on the size of a batch; decisions, subsets and shards are equal.
    """
    again = split(tmp_path, whole, 13, 25, trained=True)
    assert_equal_but_for_rounding(again, whole.data)


# ------------------------------------------------------------------------------ doing it again


def test_a_finished_run_does_nothing(whole: Whole):
    """A second run reads no URL, writes no file and publishes no version."""
    asked, before = whole.web.server.hits.total(), contents(whole.data)
    version = whole.data.at
    again = run_all(whole.recipe(whole.data.root))
    assert whole.web.server.hits.total() == asked
    assert again.at == version
    assert different(contents(again), before) == []


def test_a_retry_redoes_only_the_parts_that_gained(own_web: SmallWeb, tmp_path: Path):
    """Links that live again: their parts get a new generation, all others keep their files, and
    what comes out is what a first run would find today; a retry that gains nothing remembers its
    attempts and changes nothing else.
    """
    lists = write_list(tmp_path / "list.csv", own_web.pairs)
    config = recipe(tmp_path / "set", lists, own_web)
    data = run_all(config)
    before = {table: files(data, table) for table in PER_PAIR}
    revived = {own_web.server.image(path, seed=900) for path in own_web.missing[:1]}
    gained = sorted(
        part
        for part in data.parts("urls")
        if revived & set(data.read("urls", part)["url"].to_pylist())
    )
    download(data, config.download, config.workers, retry_failed=True)
    assert [p for p, e in data.parts("samples").items() if e.content == 1] == gained
    data = run_all(config)
    assert files(data, "urls") == before["urls"]
    old = [f for p, f in enumerate(before["scores_image_stats"]) if p not in gained]
    now = files(data, "scores_image_stats")
    assert [f for p, f in enumerate(now) if p not in gained] == old
    for table in ("samples", "scores_image_stats"):
        assert {data.parts(table)[p].generation for p in gained} == {1}
    assert {e.generation for e in data.parts("scores_text_stats").values()} == {1}  # refitted
    today = run_all(recipe(tmp_path / "today", lists, own_web))
    assert_equal_but_for_rounding(data, today)

    held = {name: it for name, it in contents(data).items() if not name.startswith("samples/")}
    tried = data.read("samples", gained[0])["attempts"].to_pylist()
    download(data, config.download, config.workers, retry_failed=True)
    assert run_all(config).at == data.at
    assert different({n: contents(data)[n] for n in held}, held) == []
    again = data.read("samples", gained[0])["attempts"].to_pylist()
    assert sum(again) >= sum(tried)


def test_a_second_batch_computes_only_what_is_new(own_web: SmallWeb, tmp_path: Path):
    """A tenth of new pairs and some known ones: the parts that are there stay as they are where a
    unit looks at one pair; and all tables equal those of one run over the union.
    """
    first = write_list(tmp_path / "first.csv", own_web.pairs)
    config = recipe(tmp_path / "set", first, own_web)
    old = contents(run_all(config))
    asked = own_web.server.hits.copy()

    second = write_list(tmp_path / "second.csv", [*add(own_web, 5), *own_web.pairs[:12]])
    later = IngestConfig(path=str(second), batch="second", source="small", part_rows=10)
    data = run_all(config.model_copy(update={"ingest": (*config.ingest, later)}))
    new = contents(data)
    kept = [n for n in old if n.startswith((*(f"{t}/0" for t in PER_PAIR), "images/"))]
    assert different({n: old[n] for n in kept}, {n: new[n] for n in kept}) == []
    for table in PER_PAIR:
        assert {entry.generation for entry in data.parts(table).values()} == {0}
        assert data.rows(table) == len(own_web.pairs) + 5 - (5 if "scores" in table else 0)
    came = own_web.server.hits - asked
    assert (came.total(), came["/robots.txt"]) == (6, 1)

    both = IngestConfig(path=[str(first), str(second)], batch="both", part_rows=10)
    union = run_all(recipe(tmp_path / "union", first, own_web, ingest=(both,)))
    assert_equal_but_for_rounding(data, union)


def test_a_batch_of_dead_links_goes_all_the_way(own_web: SmallWeb, tmp_path: Path):
    """A part of which nothing could be downloaded has parts without rows in every later table."""
    dead = own_web.missing
    alive = [pair for pair in own_web.pairs if not pair[0].endswith(tuple(dead))]
    first = write_list(tmp_path / "first.csv", alive)
    second = write_list(
        tmp_path / "second.csv", [pair for pair in own_web.pairs if pair not in alive]
    )
    config = recipe(tmp_path / "set", first, own_web)
    later = IngestConfig(path=str(second), batch="second", part_rows=10)
    data = run_all(config.model_copy(update={"ingest": (*config.ingest, later)}))
    (last,) = set(data.parts("urls")) - set(range(max(data.parts("urls"))))
    assert data.parts("samples")[last].rows == len(dead)
    for table in ("scores_image_stats", "scores_bootstrap", "codes_picked", "subset_all"):
        assert data.parts(table)[last].rows == 0
    assert funnel(data)[0].failed["failed_to_download: HTTP Error 404: Not Found"] == len(dead)


def test_a_frozen_model_scores_only_the_new_parts(own_web: SmallWeb, tmp_path: Path):
    """With `refit: frozen`, a later batch is scored by the model that is there."""
    frozen = (SMALL.model_copy(update={"refit": "frozen"}),)
    first = write_list(tmp_path / "first.csv", own_web.pairs)
    config = recipe(tmp_path / "set", first, own_web, scorers=frozen)
    data = run_all(config, "score")
    before, model = files(data, "scores_bootstrap"), data.artifact_in_use("scores_bootstrap")
    second = write_list(tmp_path / "second.csv", add(own_web, 5))
    later = IngestConfig(path=str(second), batch="second", part_rows=10)
    data = run_all(config.model_copy(update={"ingest": (*config.ingest, later)}), "score")
    assert files(data, "scores_bootstrap")[: len(before)] == before
    assert data.rows("scores_bootstrap") == 48
    assert {e.inputs["artifact"] for e in data.parts("scores_bootstrap").values()} == {model}


def test_a_scorer_added_later_computes_its_own_table_alone(whole: Whole, tmp_path: Path):
    """The tables of the other scorers keep their files."""
    config = whole.recipe(tmp_path / "set", trained=False)
    data = run_all(config, "score")
    before = files(data, "scores_image_stats")
    claimed = contents(data)
    score(data, [*config.scorers, ImageStatsScorer(name="again")])
    assert files(data, "scores_image_stats") == before
    new = contents(data)
    assert all(name.startswith("scores_again/") for name in different(claimed, new))


# ------------------------------------------------------------------------------ unscored


def test_an_image_that_cannot_be_decoded_never_passes(whole: Whole, tmp_path: Path):
    """A stored image that went bad has no score: its pair is out as unknown, in no subset."""
    config = whole.recipe(tmp_path / "set", trained=False)
    data = run_all(config, "download")
    (bad,) = [r for r in rows_of(data, "samples") if r["uid"] == uid_of(whole, "/3.jpg")]
    with Path(data.tar_path(bad["shard"])).open("r+b") as tar:
        tar.seek(bad["offset"])
        tar.write(bytes(bad["size"]))
    data = run_all(config, "compress")
    (scored,) = [r for r in rows_of(data, "scores_image_stats") if r["uid"] == bad["uid"]]
    assert scored["sharpness"] is None
    assert scored["error"]
    assert reasons(data)[bad["uid"]] == "unknown low_score"
    assert bad["uid"] not in {r["uid"] for r in rows_of(data, "subset_all")}


def test_pairs_of_a_part_without_scores_never_pass(whole: Whole, tmp_path: Path):
    """A part of a scores table that the version does not name: its pairs are out as unknown, and
    are in no subset.
    """
    config = whole.recipe(tmp_path / "set", trained=False)
    data = run_all(config, "score")
    tables = versions.load(data.fs, data.path, data.at)
    del tables["scores_image_stats"][1]
    versions.publish(data.fs, data.path, data.at + 1, tables)
    data.refresh()
    filter_pairs(data, config.rules)
    dedup(data, config.dedup)
    compress(data, config.selectors, config.choose)
    lost = [r["uid"] for r in data.read("samples", 1).to_pylist() if r["status"] == "success"]
    found = reasons(data)
    assert "unknown low_score" in {found[uid] for uid in lost}
    assert {found[uid] for uid in lost} <= {*LOST, "empty_words"}
    assert sum(funnel(data)[1].failed.get(reason, 0) for reason in LOST) >= len(lost) - 1
    assert not set(lost) & {r["uid"] for r in rows_of(data, "subset_all")}
    assert data.rows("subset_all")


def reasons(data: Dataset) -> dict[str, str | None]:
    rows = query(data, "SELECT uid, reason FROM decisions").to_pylist()
    return {row["uid"]: row["reason"] for row in rows}
