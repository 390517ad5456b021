"""plan: what a recipe would do, in words and bytes, without doing it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.plan import embed_dim, plan, rows_of, stages, subset_rows
from schemas.configs import (
    AllSelector,
    BootstrapScorer,
    ClipScorer,
    CurationConfig,
    DownloadConfig,
    ExportConfig,
    IngestConfig,
    RandomSelector,
    Rule,
    TopSelector,
    Workers,
    load_config,
)

RECIPES = sorted((Path(__file__).parents[2] / "flows/configs").rglob("*.yaml"))
TOP = Rule(name="top", value="v", keep_top=0.5)


def list_of(path: Path, rows: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"url": [f"http://a/{i}" for i in range(rows)]}), path)
    return str(path)


def recipe(**knobs) -> CurationConfig:
    return CurationConfig(**({"root": "somewhere"} | knobs))


def bytes_of(config: CurationConfig, stage: str, rows: int = 1000) -> list[float]:
    return [size for name, _, size in stages(config, rows) if name == stage]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_plans_and_touches_nothing(path: Path, tmp_path: Path, monkeypatch):
    """A line for each of its units, in the order of the way; no file is made."""
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    text = plan(config)
    assert list(tmp_path.iterdir()) == []
    assert f"{config.root} (nothing is written by a dry run)" in text
    first = [line.split()[0] for line in text.split("-" * 79)[1].split("\n") if line]
    order = ("ingest", "download", "score", "filter", "recaption", "dedup", "compress", "export")
    assert first == sorted(first, key=[*order, "train", "validate"].index)
    assert first.count("score") == len(config.scorers)
    assert first.count("compress") == len(config.selectors)
    assert first.count("export") == len(config.exports)
    assert max(map(len, text.split("-" * 79)[1].splitlines())) <= 79


def test_the_plan_of_a_small_recipe(tmp_path: Path):
    """Word by word."""
    config = recipe(
        root="out",
        ingest=(IngestConfig(path=list_of(tmp_path / "list.parquet", 2000), sample=0.5),),
        download=DownloadConfig(image_size=100),
        scorers=(ClipScorer(model="ViT-B-16", pretrained="openai"),),
        rules=(TOP,),
        dedup=None,
        selectors=(RandomSelector(fraction=0.2),),
        exports=(ExportConfig(subset="random"),),
        workers=Workers(count=2, max_count=8),
    )
    lines = plan(config).splitlines()
    assert lines[:2] == ["dataset   out (nothing is written by a dry run)", "input     1,000 rows"]
    assert [" ".join(line.split()) for line in lines[6:12]] == [
        "download 100 px border jpg, 256 at once 3.9 MB",
        "score clip: ViT-B-16 openai 2.1 MB",
        "filter top 12.0 kB",
        "compress random (random) 12.0 kB",
        "export random -> exports/ 710.0 kB",
        "-" * 79,
    ]
    assert lines[-1].startswith("workers   2 to 8 Ray actors, 1 CPU and 1 GPU each where")


# ------------------------------------------------------------------------------ rows


def test_rows_come_from_the_footers(tmp_path: Path):
    """A file, a folder, a glob or several of them, times the sample."""
    one, two = list_of(tmp_path / "in/1.parquet", 70), list_of(tmp_path / "in/2.parquet", 30)
    for path in (str(tmp_path / "in"), f"{tmp_path}/in/*.parquet", [one, two]):
        assert rows_of(IngestConfig(path=path)) == 100
        assert rows_of(IngestConfig(path=path, sample=0.1)) == 10
    assert rows_of(IngestConfig(path=one)) == 70


@pytest.mark.parametrize("path", ["list.tsv", "missing.parquet", "none/*.parquet"])
def test_other_lists_have_no_length_before_they_are_read(path: str, tmp_path: Path):
    """Then sizes are told per million rows, and the plan says so."""
    (tmp_path / "list.tsv").write_text("url\tcaption\n")
    source = IngestConfig(path=str(tmp_path / path))
    assert rows_of(source) is None
    assert "unknown length: per 1,000,000 rows" in plan(recipe(ingest=(source,)))
    known = IngestConfig(path=list_of(tmp_path / "known.parquet", 5))
    assert "unknown length" in plan(recipe(ingest=(known, source)))


def test_lists_are_counted_once(tmp_path: Path):
    """Two lists hold what one of their joint length holds."""
    paths = [list_of(tmp_path / f"{n}.parquet", n) for n in (60, 40)]
    two = recipe(ingest=tuple(IngestConfig(path=p) for p in paths))
    assert "input     100 rows" in plan(two)
    assert sum(bytes_of(two, "ingest", 100)) == sum(
        bytes_of(recipe(ingest=(IngestConfig(path=paths),)), "ingest", 100)
    )


# ------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("selector", "rows"),
    [
        (AllSelector(), 500),
        (AllSelector(pool="downloaded"), 1000),
        (RandomSelector(fraction=0.1), 50),
        (RandomSelector(fraction=0.1, pool="downloaded"), 100),
        (TopSelector(by="v", count=7), 7),
        (TopSelector(by="v", count=7000), 500),
        (RandomSelector(name="control", like="first", pool="downloaded"), 20),
        (RandomSelector(name="control", like="of_an_earlier_run"), 500),
    ],
)
def test_subsets_and_shards_are_as_large_as_the_selection(selector, rows):
    """Of 1000 pairs, of which a rule keeps half: at most so many are selected and exported."""
    first = TopSelector(name="first", by="v", fraction=0.04)
    exports = (ExportConfig(subset=selector.name), ExportConfig(subset="first"))
    config = recipe(rules=(TOP,), selectors=(first, selector), exports=exports)
    assert subset_rows(config, 1000) == {"first": 20, selector.name: rows}
    mine, small = bytes_of(config, "export")
    assert mine / small == pytest.approx(rows / 20)
    assert bytes_of(config, "compress") == [20 * 120, rows * 120]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ((), 1000),
        ((Rule(name="a", value="v", drop_below=0.3),), 1000),
        ((TOP, Rule(name="b", value="v", keep_top=0.1, of="survivors")), 50),
        ((TOP, Rule(name="b", value="v", keep_top=0.8, of="pool")), 500),
    ],
)
def test_only_fractions_bound_what_the_rules_keep(rules, kept):
    """A threshold may keep all; fractions of survivors multiply, of the pool one counts."""
    assert subset_rows(recipe(rules=rules, selectors=(AllSelector(),)), 1000) == {"all": kept}


def test_embeddings_count_by_the_models_width():
    """Two float16 vectors a pair, as wide as open_clip's packaged config says; four of a bootstrap,
    whose pairs have those of their own fold's model as well."""
    assert embed_dim("ViT-L-14") == 768
    assert embed_dim("hf-hub:nobody/knows") == 512
    for make, size in (
        (partial(ClipScorer, model="ViT-L-14"), 2 * 2 * 768),
        (partial(BootstrapScorer, embed_dim=64), 4 * 2 * 64),
    ):
        with_, without = (
            bytes_of(recipe(scorers=(make(embeddings=e),)), "score", 1)[0] for e in (True, False)
        )
        assert with_ - without == size
