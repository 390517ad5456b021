"""Every knob, in the order of the way: ingest, download, score, filter, recaption, dedup, compress, export, train, validate.

A config is frozen and refuses unknown names. Families of units are unions told apart by `kind`. What a table was
made with is its config's `claimed()`: all fields but those named in `runtime`, which change the speed and never
the result. Written as YAML; `flows/configs/` has whole recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """A frozen set of knobs; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    runtime: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 1  # of the unit that this configures: raised by hand when its results change

    def claimed(self) -> dict[str, Any]:
        """What decides the result, JSON-ready: all a table remembers."""
        return self.model_dump(mode="json", exclude=set(self.runtime)) | {"version": self.version}


class Workers(Config):
    """Where work runs: `count: 0` in this process, else that many Ray actors (grown to `max_count`)."""

    count: int = Field(0, ge=0)
    max_count: int | None = Field(None, ge=1)  # None: as many as `count`
    cpus: float = Field(1.0, gt=0)  # logical CPUs of one worker
    gpus: float | None = Field(None, ge=0)  # of one worker; None: 1 where the cluster has one, for stages with a model
    address: str | None = None  # of a running Ray cluster; None: a local one, started once per process


# ---------------------------------------------------------------------------------------------- ingest


class IngestConfig(Config):
    """A list of image-text URLs, or folders of img2dataset / WebDataset shards, to take in as one batch."""

    path: str | list[str]  # file, folder or glob; any fsspec URL
    format: Literal["auto", "parquet", "csv", "tsv", "jsonl", "webdataset", "datacomp"] = "auto"
    url_column: str | None = None  # None: url, URL, image_url ...
    caption_column: str | None = None  # None: caption, text, TEXT, title ...
    uid_column: str | None = None  # kept as source_uid; None: uid where there is one
    batch: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,80}$")  # None: from the files' names, sizes and this config
    source: str = ""  # free label in `sightings`
    sample: Fraction = 1.0  # share of URLs, by hash(seed, url): the same ones in every list order
    seed: int = 0
    part_rows: Positive = 10_000


# ---------------------------------------------------------------------------------------------- download


class DownloadConfig(Config):
    """Fetch and resize. Names and defaults are img2dataset's where it has the knob."""

    runtime: ClassVar[frozenset[str]] = frozenset(
        # how hard to try and where one may go: these change which rows fail, never what a success is
        {"concurrency", "per_host", "dns_concurrency", "retries", "retry_wait_s", "timeout_s", "deadline_s", "allow_hosts", "user_agent"}
    )
    image_size: Positive = 256
    resize_mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = "border"
    resize_only_if_bigger: bool = False
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    encode_quality: int = Field(95, ge=0, le=100)
    skip_reencode: bool = False
    min_image_size: int = Field(0, ge=0)
    max_image_area: float = Field(float("inf"), gt=0)  # pixels, of the original
    max_aspect_ratio: float = Field(float("inf"), ge=1)
    max_pixels: Positive = 90_000_000  # by the header, before decoding; PIL's bomb warning is at 89.5 M
    max_bytes: Positive = 32 * 2**20  # of one answer's body
    timeout_s: float = Field(10, gt=0)  # to connect, and between two reads (img2dataset's default)
    deadline_s: float = Field(30, gt=0)  # of one attempt, redirects and body included
    retries: int = Field(2, ge=0)  # after time-outs, 408, 425, 429 and 5xx
    retry_wait_s: float = Field(0.5, ge=0)  # doubled each time, with jitter
    max_redirects: int = Field(5, ge=0)
    concurrency: Positive = 64  # open requests of one worker
    per_host: Positive = 16  # of them, to one host
    dns_concurrency: Positive = 16
    allow_hosts: tuple[str, ...] = ()  # "127.0.0.1:8000", "10.0.0.0/8", "intranet.example": else only public addresses
    user_agent: str = "curate/0.1 (+image-text dataset curation; contact: see operator)"
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")  # X-Robots-Tag; () ignores it


# ---------------------------------------------------------------------------------------------- score


class ClipScorer(Config):
    """Cosine of an open_clip model's image and text embeddings (CLIPScore without the factor 100)."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size", "precision"})
    kind: Literal["clip"] = "clip"
    name: Name = "clip"
    model: str = "ViT-B-32"  # open_clip architecture, or hf-hub:org/name
    pretrained: str | None = "datacomp_xl_s13b_b90k"  # tag, or path of a checkpoint; None with an hf-hub: model
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that has it, else fp32
    batch_size: Positive = 256
    embeddings: bool = True


class BootstrapScorer(Config):
    """A small open_clip model trained on the pool itself, cross-fitted: no pair is scored by a model that saw it."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["bootstrap"] = "bootstrap"
    name: Name = "bootstrap"
    folds: int = Field(2, ge=2, le=20)
    steps: Positive = 600  # per fold
    train_batch_size: Positive = 128
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: int = Field(50, ge=0)
    max_pairs: Positive = 200_000  # a sample by hash(seed, uid) above that: the model must not grow with the pool
    vocabulary: int = Field(4096, ge=16)  # words learned from the pool's captions
    context_length: int = Field(24, ge=4)
    image_size: Positive = 64
    patch_size: Positive = 16
    width: Positive = 192
    layers: Positive = 6
    text_width: Positive = 128
    text_layers: Positive = 2
    embed_dim: Positive = 128
    batch_size: Positive = 256
    embeddings: bool = True
    threads: Positive = 1  # torch threads of a training: part of the result, so that it is the same anywhere
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"


class ImageStatsScorer(Config):
    """What the pixels say without a model."""

    kind: Literal["image_stats"] = "image_stats"
    name: Name = "image_stats"


class TextStatsScorer(Config):
    """What the caption says without a model, and how often it and the image occur in the whole pool."""

    kind: Literal["text_stats"] = "text_stats"
    name: Name = "text_stats"
    refit: Literal["every_version", "frozen"] = "every_version"


ScorerConfig = Annotated[ClipScorer | BootstrapScorer | ImageStatsScorer | TextStatsScorer, Field(discriminator="kind")]


# ---------------------------------------------------------------------------------------------- filter


class Rule(Config):
    """A named reason to drop a pair. Exactly one of drop_below, drop_above, keep_top and drop_if."""

    name: Name
    value: str | None = None  # column of `pairs`, such as scores_clip__clip_score
    drop_below: float | None = None
    drop_above: float | None = None
    keep_top: Fraction | None = None  # exactly floor(N * keep_top) of the N known values, ties by uid
    of: Literal["pool", "survivors"] = "pool"  # N counts all downloaded pairs, or those that the rules before let pass
    drop_if: str | None = None  # SQL predicate over one row of `pairs`; NULL is unknown
    fault: Literal["image", "pair"] = "pair"  # a pair at fault can be repaired by another caption

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [w for w in ("drop_below", "drop_above", "keep_top", "drop_if") if getattr(self, w) is not None]
        if len(ways) != 1:
            raise ValueError(f"rule {self.name!r} needs exactly one of drop_below, drop_above, keep_top, drop_if; it has {ways or 'none'}")
        if (self.value is None) != (ways == ["drop_if"]):
            raise ValueError(f"rule {self.name!r}: `value` names the column of {ways[0]}; drop_if names its columns itself")
        return self


class Rules(Config):
    """All rules of a recipe, in order: the first one that fails names the reason."""

    rules: tuple[Rule, ...] = ()


# ---------------------------------------------------------------------------------------------- recaption


class HfCaptioner(Config):
    """Any transformers image-to-text checkpoint, by hub name or path."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["hf"] = "hf"
    name: Name = "hf"
    model: str  # such as Salesforce/blip-image-captioning-base
    prompt: str = ""  # such as "a picture of"
    num_captions: Positive = 1
    max_new_tokens: Positive = 30
    top_p: float | None = Field(0.9, gt=0, le=1)  # nucleus sampling (BLIP CapFilt); None: beams
    num_beams: Positive = 1
    repetition_penalty: float = Field(1.1, gt=0)  # BLIP's released code
    batch_size: Positive = 16
    seed: int = 0


CaptionerConfig = HfCaptioner


# ---------------------------------------------------------------------------------------------- dedup


class ExactDuplicates(Config):
    """Equal bytes (`sha256`) or equal URL; equal pairs cannot meet, they share their uid."""

    kind: Literal["exact"] = "exact"
    by: Literal["sha256", "url"] = "sha256"

    @property
    def name(self) -> str:
        return self.kind if self.by == "sha256" else self.by


class PerceptualDuplicates(Config):
    """64-bit pHash within a Hamming radius: all such pairs, no approximation."""

    kind: Literal["perceptual"] = "perceptual"
    radius: int = Field(6, ge=0, le=16)
    min_distinct_bits: int = Field(8, ge=0, le=32)  # a hash with fewer ones or zeros says nothing: blank images are no duplicates

    @property
    def name(self) -> str:
        return self.kind


DuplicatesConfig = Annotated[ExactDuplicates | PerceptualDuplicates, Field(discriminator="kind")]


class DedupConfig(Config):
    """Which finders, and which pair of a group stays: the highest `keep_by`, then the lowest uid."""

    finders: tuple[DuplicatesConfig, ...] = (ExactDuplicates(), PerceptualDuplicates())
    keep_by: str = "samples__original_width * samples__original_height"  # SQL over one row of `pairs`; NULL sorts last
    among: Literal["survivors", "downloaded"] = "survivors"  # survivors: a pair that quality dropped never represents a group


# ---------------------------------------------------------------------------------------------- compress


class _Selector(Config):
    name: Name
    fraction: float | None = Field(None, gt=0, le=1)  # of the survivors
    count: int | None = Field(None, ge=1)
    like: Name | None = None  # as many as that subset has
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if sum(size is not None for size in (self.fraction, self.count, self.like)) != 1:
            raise ValueError(f"selector {self.name!r} needs exactly one of fraction, count and like")
        return self


class RandomSelector(_Selector):
    """A true random subset: the control that every other selector must beat."""

    kind: Literal["random"] = "random"
    name: Name = "random"
    pool: Literal["survivors", "downloaded"] = "survivors"  # downloaded: the control for the whole curation


class AllSelector(Config):
    """Every pair of the pool: no selection."""

    kind: Literal["all"] = "all"
    name: Name = "all"
    pool: Literal["survivors", "downloaded"] = "survivors"


class TopSelector(_Selector):
    """The pairs with the highest score: exactly floor(N * fraction), ties by uid."""

    kind: Literal["top"] = "top"
    name: Name = "top"
    by: str  # column of `pairs`


class ClusterSelector(_Selector):
    """Spherical k-means on stored embeddings, a quota per cluster by largest remainder, a hash-seeded draw within (TL;DR's stage 1)."""

    kind: Literal["cluster"] = "cluster"
    name: Name = "cluster"
    embeddings: Name = "bootstrap"  # of which scorer
    column: Literal["image_emb", "text_emb"] = "image_emb"
    clusters: int | None = Field(None, ge=1)  # None: round(sqrt(N)), at most 3000 (TL;DR's N)
    iterations: Positive = 20
    train_rows: Positive = 256_000  # k-means is fitted on a sample by hash(seed, uid)


SelectorConfig = Annotated[AllSelector | RandomSelector | TopSelector | ClusterSelector, Field(discriminator="kind")]


class ChooseCaption(Config):
    """Which caption training sees."""

    use: Literal["original", "generated", "best", "all"] = "original"
    by: str | None = None  # a scorer's name for `best`, such as clip: the caption with its highest score

    @model_validator(mode="after")
    def _best_needs_by(self) -> Self:
        if (self.use == "best") != (self.by is not None):
            raise ValueError("`use: best` names its scorer in `by`, and nothing else does")
        return self


# ---------------------------------------------------------------------------------------------- export


class ExportConfig(Config):
    """WebDataset shards with parquet sidecars and sizes.json, of one subset."""

    subset: Name
    out: str | None = None  # folder or fsspec URL; None: <root>/exports/<subset>
    shard_rows: Positive = 1000
    seed: int = 0  # of the order in which pairs are written


# ---------------------------------------------------------------------------------------------- train, validate


class ClipTrainer(Config):
    """InfoNCE on exported shards with any open_clip model."""

    kind: Literal["clip"] = "clip"
    name: Name = "clip"
    model: str | dict[str, Any] = "ViT-B-32"  # architecture's name, or an open_clip model config
    pretrained: str | None = None
    vocabulary: int | None = Field(None, ge=16)  # None: open_clip's tokenizer; else words learned from the shards
    samples_seen: Positive = 30_000
    batch_size: Positive = 128
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    beta2: float = Field(0.98, gt=0, lt=1)
    warmup: int = Field(50, ge=0)  # steps
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: Positive = 200  # steps
    threads: int | None = Field(None, ge=1)  # None: torch's own choice; fix it for equal bits elsewhere


TrainerConfig = ClipTrainer


class Retrieval(Config):
    """Image-text retrieval R@k both ways; several captions per image allowed."""

    kind: Literal["retrieval"] = "retrieval"
    name: Name = "retrieval"
    path: str  # parquet with image (bytes or path), caption (text or list), or a WebDataset folder
    ks: tuple[int, ...] = (1, 5, 10)


class ZeroShot(Config):
    """Zero-shot classification: images in folders named by class, or a parquet with image and label."""

    kind: Literal["zero_shot"] = "zero_shot"
    name: Name = "zero_shot"
    path: str
    templates: tuple[str, ...] = ("a photo of a {}.",)


EvaluationConfig = Annotated[Retrieval | ZeroShot, Field(discriminator="kind")]


class AblateConfig(Config):
    """One training recipe over subsets x seeds at equal samples seen."""

    subsets: tuple[Name, ...]
    seeds: tuple[int, ...] = (0, 1, 2)


# ---------------------------------------------------------------------------------------------- the whole


class CurationConfig(Config):
    """A recipe: everything from a list of URLs to a table of results. A stage whose part is empty is left out."""

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

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for family in ("scorers", "rules", "captioners", "selectors", "evaluations"):
            names = [unit.name for unit in getattr(self, family)]
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"two {family} are named {twice[0]!r}: give one of them another `name`")
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
        raise ValueError(f"{file}: a recipe is a mapping of names to values, this is {type(raw).__name__}")
    try:
        return CurationConfig.model_validate(raw | (overrides or {}))
    except ValidationError as error:
        raise ValueError(f"{file}: " + explain(error)) from error


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: where, what is wrong, what was seen."""
    lines = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"]) or "recipe"
        seen = "" if isinstance(item["input"], dict | list) else f" (found {item['input']!r})"
        lines.append(f"{where}: {item['msg']}{seen}")
    return "; ".join(lines)
