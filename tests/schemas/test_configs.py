"""Recipes: frozen, strict, and helpful when wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.configs import (
    CodebookCaptioner,
    CurationConfig,
    DownloadConfig,
    RandomSelector,
    Rule,
    TimmEncoder,
    explain,
    load_config,
)


def test_unknown_names_are_refused_with_their_place(tmp_path: Path):
    """A typing mistake in a recipe is an error that names file, field and what was found."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("root: x\ndownload:\n  image_sise: 256\n")
    with pytest.raises(ValueError, match=r"r\.yaml: download\.image_sise: Extra inputs"):
        load_config(recipe)


def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path):
    """A list or broken YAML is named as such."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="a recipe is a mapping"):
        load_config(recipe)
    recipe.write_text("a: [")
    with pytest.raises(ValueError, match="not YAML"):
        load_config(recipe)
    with pytest.raises(ValueError, match="no such recipe"):
        load_config(tmp_path / "missing.yaml")


def test_yaml_cannot_build_objects(tmp_path: Path):
    """Recipes are read by safe_load: a tag that would run code is an error."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("root: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match="not YAML"):
        load_config(recipe)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a"},
        {"name": "a", "value": "x", "drop_below": 1, "drop_above": 2},
        {"name": "a", "drop_below": 1},
        {"name": "a", "value": "x", "drop_if": "true"},
    ],
)
def test_a_rule_has_exactly_one_way_to_drop(wrong: dict):
    """None, two, or one without its value: each is refused by name."""
    with pytest.raises(ValidationError, match="rule 'a'"):
        Rule.model_validate(wrong)


def test_two_units_of_a_name_are_refused():
    """Tables are called by unit names, so they must differ."""
    with pytest.raises(ValidationError, match="two scorers are named 'clip'"):
        CurationConfig.model_validate({"root": "x", "scorers": [{"kind": "clip"}] * 2})


def test_runtime_knobs_are_no_part_of_a_claim():
    """What changes the speed and not the result may differ between runs."""
    assert DownloadConfig(concurrency=1).claimed() == DownloadConfig(concurrency=99).claimed()
    assert DownloadConfig(image_size=64).claimed() != DownloadConfig().claimed()


def test_a_selector_has_one_size():
    """fraction, count and like exclude each other."""
    with pytest.raises(ValidationError, match="exactly one of fraction, count and like"):
        RandomSelector(fraction=0.1, count=3)


def test_explain_is_one_line():
    """Every fault of a config on one line, with what was seen."""
    with pytest.raises(ValidationError) as caught:
        DownloadConfig(image_size=0, retries=-1)
    text = explain(caught.value)
    assert "\n" not in text
    assert "image_size" in text
    assert "found 0" in text
    assert "retries" in text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"exports": [{"subset": "nope"}]}, "exports.subset: 'nope' is not among the selectors"),
        ({"choose": {"use": "best", "by": "text_stats"}}, "not among the alignment scorers"),
        ({"trainer": {"kind": "clip"}}, "give both or none"),
        (
            {"selectors": [{"kind": "all"}], "exports": [{"subset": "all"}, {"subset": "all"}]},
            "two exports go to one place",
        ),
        (
            {"trainer": {}, "ablate": {"subsets": ["zzz"]}},
            "ablate.subsets: 'zzz' is not among the exports",
        ),
    ],
)
def test_names_that_nothing_has_are_found_when_the_recipe_is_read(parts: dict, message: str):
    """Before any stage runs, with what there is to choose from."""
    with pytest.raises(ValidationError, match=message):
        CurationConfig.model_validate({"root": "x"} | parts)


def test_a_new_knob_at_its_default_refuses_no_dataset():
    """A claim holds what was chosen, and always which unit it is."""
    assert DownloadConfig().claimed() == {"version": DownloadConfig.version}
    assert RandomSelector(count=3).claimed()["kind"] == "random"


def test_a_scorer_of_another_needs_that_one_in_the_recipe():
    """`of` names a scorer that stores embeddings; another name is found before any download."""
    noise = {"kind": "noise", "of": "clip"}
    with pytest.raises(ValueError, match=r"scorers\.of: 'clip' is not among .*: bootstrap"):
        CurationConfig(root="r", scorers=[{"kind": "bootstrap"}, noise])
    assert CurationConfig(root="r", scorers=[{"kind": "clip"}, noise]).scorers[1].of == "clip"


def test_captions_are_joined_within_the_trainers_context():
    """The budget of `concat` is the trainer's context without start and end, counted by its own
    tokenizer, unless the recipe says another.
    """
    small = {"text_cfg": {"context_length": 24, "layers": 0}, "vision_cfg": {}, "embed_dim": 8}
    cases = [
        ({}, 75, "ViT-B-32"),
        ({"kind": "clip", "model": "ViT-L-14"}, 75, "ViT-L-14"),
        ({"kind": "clip", "model": small, "vocabulary": 99}, 22, "words"),
    ]
    for trainer, tokens, tokenizer in cases:
        more = {"trainer": trainer, "ablate": {"subsets": []}} if trainer else {}
        found = CurationConfig.model_validate({"root": "x", **more}).choosing
        assert (found.max_tokens, found.tokenizer) == (tokens, tokenizer)
    told = {"use": "concat", "max_tokens": 30, "tokenizer": "words"}
    found = CurationConfig.model_validate({"root": "x", "choose": told}).choosing
    assert (found.max_tokens, found.tokenizer) == (30, "words")


def test_captioners_are_told_apart_by_their_kind():
    """A codebook captioner with an encoder of its own kind, read from YAML's types."""
    captioners = [
        {"kind": "hf", "model": "x"},
        {"kind": "codebook", "encoder": {"kind": "timm", "model": "vit_tiny"}, "codes": 3000},
    ]
    hf, codebook = CurationConfig.model_validate({"root": "x", "captioners": captioners}).captioners
    assert (type(hf).__name__, type(codebook)) == ("HfCaptioner", CodebookCaptioner)
    assert codebook.encoder == TimmEncoder(model="vit_tiny")
    assert codebook.claimed()["encoder"] == {"kind": "timm", "model": "vit_tiny"}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"codes": 32_768}, "codes"),
        ({"codes": 1}, "codes"),
        ({"dim": 100}, "dim 100 is no multiple of heads 3"),
        ({"num_captions": 2}, "set a top_p"),
        ({"encoder": {"kind": "vit", "image_size": 65}}, "65 is no multiple of patch_size 8"),
    ],
)
def test_a_codebook_captioner_that_cannot_be_is_refused(knobs: dict, message: str):
    """Codes that int16 cannot hold, sizes that do not divide, equal captions asked for twice."""
    with pytest.raises(ValidationError, match=message):
        CodebookCaptioner.model_validate(knobs)


def test_how_captions_are_told_does_not_train_anew():
    """`trained` has all that the weights depend on, and nothing else."""
    plain = CodebookCaptioner()
    told = {"top_p": 0.5, "num_captions": 3, "max_new_tokens": 9, "repetition_penalty": 2.0}
    assert CodebookCaptioner.model_validate(told).trained() == plain.trained()
    faster = {"batch_size": 7, "checkpoint_every": 3, "log_every": 2, "refit": "frozen"}
    assert CodebookCaptioner.model_validate(faster).claimed() == plain.claimed()
    for name, value in {"seed": 1, "threads": 2, "beta": 1.0, "clean_steps": 7}.items():
        assert CodebookCaptioner.model_validate({name: value}).trained() != plain.trained()
