"""SIGKILL in the middle of recaptioning: the captions are those of a run that nobody stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.dataset import Dataset
from curate.recaption import recaption
from schemas.configs import HfCaptioner
from tests.blip import tiny_blip
from tests.flows.conftest import Whole
from tests.flows.contents import contents, different
from tests.flows.killing import child, finish, kill_when
from tests.flows.small_web import run_all, write_recipe

RECAPTION = (
    "import sys; from curate.recaption import recaption; from schemas.configs import load_config; "
    "from tests.flows.small_web import run_all; config = load_config(sys.argv[1]); "
    "recaption(run_all(config, 'filter'), config.captioners, config.rules)"
)


@pytest.mark.slow
def test_recaptioning_killed_twice_says_the_same(whole: Whole, tmp_path: Path):
    """After the first and the third part of captions; sampled ones, so that the seeds count."""
    blip = HfCaptioner(model=str(tiny_blip(tmp_path / "blip")), max_new_tokens=6, batch_size=2)
    config = whole.recipe(tmp_path / "one", trained=False, captioners=(blip,))
    one = run_all(config, "filter")
    recaption(one, config.captioners, config.rules)
    root = tmp_path / "set"
    pieces = whole.recipe(root, trained=False, captioners=(blip,))
    recipe = write_recipe(tmp_path / "recipe.yaml", pieces)
    folder = root / "captions_hf"
    for parts in (1, 3):
        process = child(RECAPTION, recipe)
        assert kill_when(process, lambda n=parts: len(list(folder.glob("*.parquet"))) >= n)
    finish(child(RECAPTION, recipe))
    data = Dataset(str(root))
    assert data.rows("captions_hf") > 20
    assert different(contents(data), contents(one)) == []
