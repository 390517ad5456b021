"""The menus: a config in, the unit that it names out. Arrays in, columns out; folders, Ray and SQL
are unknown here."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from models.base import Captioner, Scorer
from schemas.configs import (
    BootstrapScorer,
    CaptionerConfig,
    ClipScorer,
    CodebookCaptioner,
    FacesScorer,
    HeadScorer,
    HfCaptioner,
    ImageStatsScorer,
    ItmScorer,
    NclScorer,
    NearReferenceScorer,
    NoiseScorer,
    PiiScorer,
    ScorerConfig,
    SieveScorer,
    TextStatsScorer,
    TmarsScorer,
    VisualnessScorer,
    WordListScorer,
)


def scorer(  # noqa: PLR0911, PLR0912 - a menu
    config: ScorerConfig, artifact: Path | None = None
) -> Scorer:
    """Build the scorer of a config, with its weights loaded.

    artifact: local folder with what a pool-level unit fitted: bootstrap, ncl, noise and
    near_reference read one.
    Raises ValueError where weights cannot be had, naming them and the remedy.
    """
    match config:
        case ClipScorer():
            from models.scorers.clip import Clip

            return Clip(config)
        case BootstrapScorer():
            from models.scorers.bootstrap import Bootstrap

            return Bootstrap(config, artifact)
        case ImageStatsScorer():
            from models.scorers.image_stats import ImageStats

            return ImageStats(config)
        case FacesScorer():
            from models.scorers.faces import Faces

            return Faces(config)
        case TextStatsScorer():
            from models.scorers.text_stats import TextStats

            return TextStats(config)
        case ItmScorer():
            from models.scorers.itm import Itm

            return Itm(config)
        case SieveScorer():
            from models.scorers.sieve import Sieve

            return Sieve(config)
        case VisualnessScorer():
            from models.scorers.visualness import Visualness

            return Visualness(config)
        case HeadScorer():
            from models.scorers.head import Head

            return Head(config)
        case NclScorer():
            from models.scorers.ncl import Ncl

            return Ncl(config, artifact)
        case NoiseScorer():
            from models.scorers.noise import Noise

            return Noise(config, artifact)
        case TmarsScorer():
            from models.scorers.tmars import Tmars

            return Tmars(config)
        case NearReferenceScorer():
            from models.scorers.near_reference import NearReference

            return NearReference(config, artifact)
        case PiiScorer():
            from models.scorers.pii import Pii

            return Pii(config)
        case WordListScorer():
            from models.scorers.word_list import WordList

            return WordList(config)
        case _:
            assert_never(config)


def captioner(config: CaptionerConfig, artifact: Path | None = None) -> Captioner:
    """Build the captioner of a config, with its weights loaded. Raises ValueError as `scorer` does.

    artifact: local folder with the trained model of a codebook captioner.
    """
    match config:
        case CodebookCaptioner():
            from models.captioners.codebook import Codebook

            return Codebook(config, artifact)
        case HfCaptioner():
            from models.captioners.hf import Hf

            return Hf(config)
        case _:
            assert_never(config)
