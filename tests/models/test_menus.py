import pytest

import models
from schemas.configs import BootstrapScorer, HfCaptioner, ImageStatsScorer, TextStatsScorer


def test_each_config_gives_its_unit():
    """The menu builds what `kind` says."""
    assert type(models.scorer(ImageStatsScorer())).__name__ == "ImageStats"
    assert type(models.scorer(TextStatsScorer())).__name__ == "TextStats"


def test_a_fitted_scorer_needs_its_artifact():
    """Bootstrap without its fitted models says so."""
    with pytest.raises(ValueError, match="is fitted on a pool first"):
        models.scorer(BootstrapScorer())


@pytest.mark.usefixtures("no_hub")
def test_a_captioner_out_of_reach_is_one_clear_line():
    """With the hub out of reach the error names the model and says to give a path."""
    with pytest.raises(
        ValueError, match=r"nobody/nothing cannot be loaded .*give the path"
    ) as caught:
        models.captioner(HfCaptioner(model="nobody/nothing"))
    assert "\n" not in str(caught.value)
