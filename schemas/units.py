"""The configs of captioners, selectors, trainers and evaluations, one class each, told apart by
`kind`; those of scorers and duplicate finders are in scorers.py and duplicates.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.base import Config, Name, Positive


class HfCaptioner(Config):
    """Any transformers image-to-text checkpoint, by hub name or path."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["hf"] = "hf"
    name: Name = "hf"
    model: str  # such as Salesforce/blip-image-captioning-base
    prompt: str = ""  # such as "a picture of"
    num_captions: Positive = 1
    min_new_tokens: int = Field(0, ge=0)
    max_new_tokens: Positive = 30
    top_p: float | None = Field(0.9, gt=0, le=1)  # nucleus sampling (BLIP CapFilt); None: beams
    num_beams: Positive = 1
    repetition_penalty: float = Field(1.1, gt=0)  # BLIP's released code
    batch_size: Positive = 16
    seed: int = 0

    @field_validator("name")
    @classmethod
    def _not_copies(cls, name: str) -> str:
        if name == "copies":
            raise ValueError(
                "'copies' is taken: captions_copies holds the captions of removed copies;"
                " give the captioner another `name`"
            )
        return name


CaptionerConfig = HfCaptioner


class _Selector(Config):
    name: Name
    fraction: float | None = Field(None, gt=0, le=1)  # of the survivors
    count: int | None = Field(None, ge=1)
    like: Name | None = None  # as many as that subset has
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if sum(size is not None for size in (self.fraction, self.count, self.like)) != 1:
            raise ValueError(
                f"selector {self.name!r} needs exactly one of fraction, count and like"
            )
        return self


class RandomSelector(_Selector):
    """A true random subset: the control that every other selector must beat."""

    kind: Literal["random"] = "random"
    name: Name = "random"
    # downloaded: the control for the whole curation
    pool: Literal["survivors", "downloaded"] = "survivors"


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
    """Spherical k-means on stored embeddings, a quota per cluster by largest remainder, a hash-
    seeded draw within (TL;DR's stage 1).
    """

    kind: Literal["cluster"] = "cluster"
    name: Name = "cluster"
    embeddings: Name = "bootstrap"  # of which scorer
    column: Literal["image_emb", "text_emb"] = "image_emb"
    clusters: int | None = Field(None, ge=1)  # None: round(sqrt(N)), at most 3000 (TL;DR's N)
    iterations: Positive = 20
    train_rows: Positive = 256_000  # k-means is fitted on a sample by hash(seed, uid)


SelectorConfig = Annotated[
    AllSelector | RandomSelector | TopSelector | ClusterSelector, Field(discriminator="kind")
]


class ClipTrainer(Config):
    """InfoNCE on exported shards with any open_clip model."""

    kind: Literal["clip"] = "clip"
    name: Name = "clip"
    model: str | dict[str, Any] = "ViT-B-32"  # architecture's name, or an open_clip model config
    pretrained: str | None = None
    vocabulary: int | None = Field(
        None, ge=16
    )  # None: open_clip's tokenizer; else words learned from the shards
    samples_seen: Positive = 30_000
    batch_size: Positive = 128
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    beta2: float = Field(0.98, gt=0, lt=1)
    warmup: int = Field(50, ge=0)  # steps
    shift: int = Field(0, ge=0)  # pixels that a batch of a small (dict) model is moved by, at most
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: Positive = 200  # steps
    threads: int | None = Field(
        None, ge=1
    )  # None: torch's own choice; fix it for equal bits elsewhere


TrainerConfig = ClipTrainer


class Retrieval(Config):
    """Image-text retrieval R@k both ways; several captions per image allowed."""

    kind: Literal["retrieval"] = "retrieval"
    name: Name = "retrieval"
    path: str  # parquet with image (bytes or path), caption (text or list), or a WebDataset folder
    ks: tuple[int, ...] = (1, 5, 10)


class ZeroShot(Config):
    """Zero-shot classification: images in folders named by class, or a parquet with image and
    label.
    """

    kind: Literal["zero_shot"] = "zero_shot"
    name: Name = "zero_shot"
    path: str
    templates: tuple[str, ...] = ("a photo of a {}.",)


EvaluationConfig = Annotated[Retrieval | ZeroShot, Field(discriminator="kind")]
