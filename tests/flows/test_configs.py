"""The recipes that come along: each can be read, and its rules speak of what its scorers write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.plan import plan
from schemas.configs import CurationConfig, load_config
from schemas.tables import SAMPLES, SCORES, URLS

CONFIGS = Path(__file__).parents[2] / "flows/configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))
COLUMN = re.compile(r"\b(urls|samples|scores_[a-z0-9_]+?)__([a-z0-9_]+)\b")


def name(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


def columns(config: CurationConfig) -> set[str]:
    """All columns that the rules of a recipe can speak of."""
    made = {f"scores_{s.name}": SCORES[s.kind].names for s in config.scorers}
    if any(source.format == "datacomp" for source in config.ingest):
        made["scores_datacomp"] = SCORES["datacomp"].names
    tables = {"urls": URLS.names, "samples": SAMPLES.names} | made
    return {f"{table}__{column}" for table, names in tables.items() for column in names}


def spoken_of(config: CurationConfig) -> set[str]:
    """All columns that its rules, its deduplication and its selectors name."""
    texts = [text for rule in config.rules for text in (rule.subject, rule.drop_if)]
    texts += [config.dedup.keep_by if config.dedup else None]
    texts += [getattr(selector, "by", None) for selector in config.selectors]
    return {"__".join(found) for text in texts if text for found in COLUMN.findall(text)}


def test_the_baselines_are_there():
    """DataComp's, ALIGN, DFN, negCLIPLoss, Sieve, T-MARS, and where to start."""
    assert {name(path) for path in RECIPES} >= {
        *("align", "cc3m", "datacomp", "demo", "dfn", "ncl", "recommended", "recommended_gpu"),
        *("datacomp/basic", "datacomp/laion2b", "datacomp/no_filter", "sieve", "tmars"),
        *("datacomp/text_based", "datacomp/image_based", "datacomp/image_based_and_clip"),
    }


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_the_rules_speak_of_columns_that_are_written(path: Path):
    """Every column that a recipe names is one of its lists, its samples or its scorers."""
    config = load_config(path)
    assert spoken_of(config) <= columns(config)
    if config.rules:
        assert spoken_of(config)


def test_a_column_that_nobody_writes_would_be_found():
    """The check above sees a scorer that is not configured, and a column that it does not have."""
    config = load_config(CONFIGS / "align.yaml", {"scorers": [{"kind": "text_stats"}]})
    assert "scores_image_stats__width" in spoken_of(config) - columns(config)


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_says_where_it_comes_from(path: Path):
    """It begins with a comment, and can be planned."""
    assert path.read_text().startswith("# ")
    assert load_config(path).root in plan(load_config(path))


def test_the_rules_are_those_of_their_papers():
    """Thresholds as published: ALIGN, section 3; DataComp, 4.1; DFN, 15 %; T-MARS, the median."""
    align = {r.name: r for r in load_config(CONFIGS / "align.yaml").rules}
    assert align["common_image"].drop_above == 1000
    assert align["common_text"].drop_above == 10
    assert (align["few_words"].drop_below, align["many_words"].drop_above) == (3, 20)
    assert "<= 200" in str(align["small"].drop_if)
    assert ">= 3" in str(align["long"].drop_if)
    (l14,) = load_config(CONFIGS / "datacomp.yaml").rules
    assert (l14.keep_top, l14.datacomp_compat, l14.of) == (0.3, True, "pool")
    laion = load_config(CONFIGS / "datacomp/laion2b.yaml").rules[1]
    assert laion.drop_below == 0.28
    assert load_config(CONFIGS / "dfn.yaml").rules[0].keep_top == 0.15
    assert load_config(CONFIGS / "tmars.yaml").rules[0].keep_top == 0.5
    (fused,) = load_config(CONFIGS / "sieve.yaml").rules
    assert fused.blend is not None
    assert (sorted(fused.blend.values()), fused.keep_top) == ([0.5, 0.5], 0.2)
    image = load_config(CONFIGS / "datacomp/image_based.yaml")
    both = load_config(CONFIGS / "datacomp/image_based_and_clip.yaml")
    assert both.scorers == image.scorers
    assert both.rules == (*image.rules, l14)
