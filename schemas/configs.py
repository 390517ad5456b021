"""Every knob, in the order of the way: ingest, download, score, filter, recaption, dedup, compress,
export, train, validate.

A config is frozen and refuses unknown names. Families of units are unions told apart by `kind`.
What a table was made with is its config's `claimed()`: all fields but those named in `runtime`,
which change the speed and never the result. Written as YAML; `flows/configs/` has whole recipes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from schemas.base import Config, Fraction, Name, Positive, Workers, explain, refuse_unknown
from schemas.download import DownloadConfig
from schemas.duplicates import (
    BlankDuplicates,
    DedupConfig,
    DuplicatesConfig,
    EvaluationItems,
    ExactDuplicates,
    PerceptualDuplicates,
    SemanticDuplicates,
    TextDuplicates,
)
from schemas.scorers import (
    BootstrapScorer,
    ClipScorer,
    FacesScorer,
    HeadScorer,
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
from schemas.selectors import (
    AllSelector,
    BalanceSelector,
    ChooseCaption,
    ClusterSelector,
    CodebookSelector,
    D4Selector,
    DensitySelector,
    FacilitySelector,
    KCenterSelector,
    NclNormSimSelector,
    RandomSelector,
    SelectorConfig,
    TopSelector,
)
from schemas.units import (
    CaptionerConfig,
    ClipTrainer,
    CodebookCaptioner,
    EncoderConfig,
    EvaluationConfig,
    HfCaptioner,
    OpenClipEncoder,
    Retrieval,
    TimmEncoder,
    TrainerConfig,
    TransformersEncoder,
    VitEncoder,
    ZeroShot,
)

__all__ = [
    "CLIP_TOKENIZER",
    "TOKENS",
    "AblateConfig",
    "AllSelector",
    "BalanceSelector",
    "BlankDuplicates",
    "BootstrapScorer",
    "CaptionerConfig",
    "ChooseCaption",
    "ClipScorer",
    "ClipTrainer",
    "ClusterSelector",
    "CodebookCaptioner",
    "CodebookSelector",
    "Config",
    "CurationConfig",
    "D4Selector",
    "DedupConfig",
    "DensitySelector",
    "DownloadConfig",
    "DuplicatesConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "EvaluationItems",
    "ExactDuplicates",
    "ExportConfig",
    "FacesScorer",
    "FacilitySelector",
    "HeadScorer",
    "HfCaptioner",
    "ImageStatsScorer",
    "IngestConfig",
    "ItmScorer",
    "KCenterSelector",
    "NclNormSimSelector",
    "NclScorer",
    "NearReferenceScorer",
    "NoiseScorer",
    "OpenClipEncoder",
    "PerceptualDuplicates",
    "PiiScorer",
    "RandomSelector",
    "Retrieval",
    "Rule",
    "Rules",
    "ScorerConfig",
    "SelectorConfig",
    "SemanticDuplicates",
    "SieveScorer",
    "TextDuplicates",
    "TextStatsScorer",
    "TimmEncoder",
    "TmarsScorer",
    "TopSelector",
    "TrainerConfig",
    "TransformersEncoder",
    "VisualnessScorer",
    "VitEncoder",
    "WordListScorer",
    "Workers",
    "ZeroShot",
    "explain",
    "load_config",
]


TOKENS = 77  # of CLIP's context, start and end included
WORDS = "words"  # of models/vocabulary.py, as a trainer with a `vocabulary` counts
CLIP_TOKENIZER = "ViT-B-32"  # open_clip's default tokenizer, by the name of a model that has it


class IngestConfig(Config):
    """A list of image-text URLs, or folders of img2dataset / WebDataset shards, to take in as one
    batch.
    """

    path: str | list[str]  # file, folder or glob; any fsspec URL
    format: Literal["auto", "parquet", "csv", "tsv", "jsonl", "webdataset", "datacomp"] = "auto"
    url_column: str | None = None  # None: url, URL, image_url ...
    caption_column: str | None = None  # None: caption, text, TEXT, title ...
    uid_column: str | None = None  # kept as source_uid; None: uid where there is one
    batch: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,80}$"
    )  # None: from the files' names, sizes and this config
    source: str = ""  # free label in `sightings`
    sample: Fraction = 1.0  # share of URLs, by hash(seed, url): the same ones in every list order
    seed: int = 0
    part_rows: Positive = 10_000


class Rule(Config):
    """A named reason to drop a pair, with exactly one of its four ways to say when."""

    name: Name
    value: str | None = None  # column of `pairs`, such as scores_clip__clip_score
    # or columns with weights: the sum of weight * (x - min) / (max - min), where min and max are of
    # the pool's known, finite values; a column with one value alone counts 0
    blend: dict[str, float] | None = Field(None, min_length=1)
    drop_below: float | None = None
    drop_above: float | None = None
    # exactly floor(N * keep_top) of the N known values, ties by uid
    keep_top: Fraction | None = None
    # DataComp's own baseline instead: all with a value >= that of place int(N * keep_top), so one
    # more and all ties
    datacomp_compat: bool = False
    # N counts all downloaded pairs, or those that the rules before let pass
    of: Literal["pool", "survivors"] = "pool"
    drop_if: str | None = None  # SQL predicate over one row of `pairs`; NULL is unknown
    fault: Literal["image", "pair"] = "pair"  # a pair at fault can be repaired by another caption

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [
            w
            for w in ("drop_below", "drop_above", "keep_top", "drop_if")
            if getattr(self, w) is not None
        ]
        if len(ways) != 1:
            raise ValueError(
                f"rule {self.name!r} needs exactly one of drop_below, drop_above, keep_top and"
                f" drop_if; it has {ways or 'none'}"
            )
        if self.datacomp_compat and self.keep_top is None:
            raise ValueError(f"rule {self.name!r}: datacomp_compat says how keep_top is meant")
        if self.drop_if is not None and re.search(r"\b(select|over)\b", self.drop_if, re.I):
            raise ValueError(f"rule {self.name!r}: drop_if is said of one row: no SELECT, no OVER")
        given = [self.value, self.blend]
        if given.count(None) != (2 if ways == ["drop_if"] else 1):
            raise ValueError(
                f"rule {self.name!r}: `value` names the column of {ways[0]}, or `blend` several"
                " with their weights; drop_if names its columns itself"
            )
        return self

    @property
    def subject(self) -> str:
        """What its thresholds are of, in words; of a predicate the predicate."""
        if self.blend is not None:
            return " + ".join(f"{w:g} * minmax({column})" for column, w in self.blend.items())
        return str(self.value or self.drop_if)


class Rules(Config):
    """All rules of a recipe, in order: the first one that fails names the reason."""

    rules: tuple[Rule, ...] = ()


class ExportConfig(Config):
    """WebDataset shards with parquet sidecars and sizes.json, of one subset."""

    subset: Name
    out: str | None = None  # folder or fsspec URL; None: <root>/exports/<subset>
    shard_rows: Positive = 1000
    seed: int = 0  # of the order in which pairs are written
    # a scorer of kind `faces`: what is in its boxes is blurred
    blur_faces: Name | None = None
    # images whose faces it has not looked for, or could not: an error, or written as they are
    unknown_faces: Literal["refuse", "keep"] = "refuse"
    # of the blurred ones, for jpg and webp; png is lossless. DownloadConfig's default
    blur_quality: int = Field(95, ge=1, le=100)


class AblateConfig(Config):
    """One training recipe over subsets x seeds."""

    subsets: tuple[Name, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    # samples: every run sees the trainer's `samples_seen` (DataComp's rule). epochs: every run goes
    # through its subset as often as that many samples go through the largest one (TL;DR's)
    equal: tuple[Literal["samples", "epochs"], ...] = Field(("samples",), min_length=1)


class CurationConfig(Config):
    """A recipe: everything from a list of URLs to a table of results. A stage whose part is empty
    is left out.
    """

    root: str  # the dataset's folder; any fsspec URL
    ingest: tuple[IngestConfig, ...] = ()
    download: DownloadConfig = DownloadConfig()
    scorers: tuple[ScorerConfig, ...] = (ImageStatsScorer(), TextStatsScorer(), BootstrapScorer())
    rules: tuple[Rule, ...] = ()
    captioners: tuple[CaptionerConfig, ...] = ()
    dedup: DedupConfig | None = DedupConfig()
    selectors: tuple[SelectorConfig, ...] = ()
    choose: ChooseCaption = ChooseCaption()
    exports: tuple[ExportConfig, ...] = ()
    trainer: TrainerConfig | None = None
    evaluations: tuple[EvaluationConfig, ...] = ()
    ablate: AblateConfig | None = None
    workers: Workers = Workers()

    @property
    def choosing(self) -> ChooseCaption:
        """`choose` with the tokens that the trainer's context holds, start and end aside, and what
        counts them.
        """
        context, tokenizer = TOKENS, CLIP_TOKENIZER
        if self.trainer is not None:
            model = self.trainer.model
            if isinstance(model, dict):
                context = int(model.get("text_cfg", {}).get("context_length", TOKENS))
            tokenizer = model if isinstance(model, str) else CLIP_TOKENIZER
            tokenizer = tokenizer if self.trainer.vocabulary is None else WORDS
        tokens = {"max_tokens": self.choose.max_tokens or context - 2}
        return self.choose.model_copy(
            update=tokens | {"tokenizer": self.choose.tokenizer or tokenizer}
        )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for family in ("scorers", "rules", "captioners", "selectors", "evaluations"):
            names = [unit.name for unit in getattr(self, family)]
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(
                    f"two {family} are named {twice[0]!r}: give one of them another `name`"
                )
        return self

    @model_validator(mode="after")
    def _references_are_there(self) -> Self:
        """A name that nothing has is found before days of download, not after them."""
        scorers = [s.name for s in self.scorers if s.kind in ("clip", "bootstrap")]
        subsets = [s.name for s in self.selectors]
        exported = [e.subset for e in self.exports]
        refuse_unknown("exports.subset", exported, subsets, "selectors")
        looking = [s.name for s in self.scorers if isinstance(s, FacesScorer)]
        blurring = [e.blur_faces for e in self.exports if e.blur_faces is not None]
        refuse_unknown("exports.blur_faces", blurring, looking, "scorers of kind faces")
        of = [s.of for s in self.scorers if isinstance(s, NclScorer | NoiseScorer)]
        refuse_unknown("scorers.of", of, scorers, "scorers with embeddings")
        of = [s.of for s in self.scorers if isinstance(s, HeadScorer | NearReferenceScorer)]
        listed = any(source.format in ("auto", "datacomp") for source in self.ingest)
        of_images = [*scorers, *(["datacomp"] if listed else [])]  # a list can bring embeddings
        refuse_unknown("scorers.of", of, of_images, "scorers with embeddings")
        chosen = [self.choose, *(s.choose for s in self.selectors if s.choose is not None)]
        by = [choose.by for choose in chosen if choose.by is not None]
        refuse_unknown("choose.by", by, scorers, "alignment scorers")
        if self.ablate is not None:
            refuse_unknown("ablate.subsets", list(self.ablate.subsets), exported, "exports")
        if (self.trainer is None) != (self.ablate is None):
            raise ValueError("`trainer` says how to train and `ablate` on what: give both or none")
        targets = [e.out or e.subset for e in self.exports]
        if len(set(targets)) < len(targets):
            raise ValueError(f"two exports go to one place: {', '.join(sorted(targets))}")
        return self


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> CurationConfig:
    """Read a recipe. Raises ValueError with the file, the field and what was found there."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such recipe; see flows/configs/ for some to start from")
    try:
        raw = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ValueError(
            f"{file}: a recipe is a mapping of names to values, this is {type(raw).__name__}"
        )
    try:
        return CurationConfig.model_validate(raw | (overrides or {}))
    except ValidationError as error:
        raise ValueError(f"{file}: " + explain(error)) from error
