"""The configs of captioners, trainers and evaluations, one class each, told apart by `kind`; those
of scorers, duplicate finders and selectors are in scorers.py, duplicates.py and selectors.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.base import Config, Name, Positive


def _not_copies(name: str) -> str:
    if name == "copies":
        raise ValueError(
            "'copies' is taken: captions_copies holds the captions of removed copies;"
            " give the captioner another `name`"
        )
    return name


CaptionerName = Annotated[Name, AfterValidator(_not_copies)]


class HfCaptioner(Config):
    """Any transformers image-to-text checkpoint, by hub name or path."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["hf"] = "hf"
    name: CaptionerName = "hf"
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


class VitEncoder(Config):
    """A small vision transformer trained from scratch with the captioner: needs no weights."""

    kind: Literal["vit"] = "vit"
    image_size: Positive = 64  # pixels
    patch_size: Positive = 8
    width: Positive = 128
    layers: Positive = 3

    @model_validator(mode="after")
    def _tiles(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}"
            )
        return self


class OpenClipEncoder(Config):
    """The image tower of an open_clip model."""

    kind: Literal["open_clip"] = "open_clip"
    model: str = "ViT-B-16"  # architecture, hf-hub:org/name, or a folder as open_clip pushes them
    pretrained: str | None = None  # tag or checkpoint path of an architecture


class TransformersEncoder(Config):
    """A vision model of transformers, by hub name or path; TL;DR's is a DeiT ViT-B/16."""

    kind: Literal["transformers"] = "transformers"
    model: str


class TimmEncoder(Config):
    """A timm model by name."""

    kind: Literal["timm"] = "timm"
    model: str
    pretrained: str | None = None  # path of a checkpoint; None: the hub's own weights


EncoderConfig = Annotated[
    VitEncoder | OpenClipEncoder | TransformersEncoder | TimmEncoder, Field(discriminator="kind")
]


class CodebookCaptioner(Config):
    """TL;DR's captioner (2305.20087, section 3.1), trained on the pool itself: patches quantised to
    a codebook, from which a decoder tells the caption. It says for every image which codes it has.
    """

    runtime: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "checkpoint_every", "log_every", "refit"}
    )
    # what only captions depend on: the trained model is the same
    decoding: ClassVar[frozenset[str]] = frozenset(
        {"num_captions", "min_new_tokens", "max_new_tokens", "top_p", "repetition_penalty"}
    )
    kind: Literal["codebook"] = "codebook"
    name: CaptionerName = "codebook"
    encoder: EncoderConfig = VitEncoder()
    codes: int = Field(512, ge=2, le=32_767)  # TL;DR's 3 000; they are stored as int16
    dim: Positive = 192  # of codes and decoder
    layers: Positive = 2  # of the decoder
    heads: Positive = 3
    dropout: float = Field(0.1, ge=0, lt=1)
    update: Literal["ema", "gradient"] = "ema"  # how codes follow their patches
    decay: float = Field(0.99, gt=0, lt=1)  # of the moving average
    beta: float = Field(0.25, ge=0)  # of the commitment term (VQ-VAE); TL;DR has 1
    revive_after: Positive = 20  # steps without a patch, after which a code is put on one
    # the codes' first places: the most frequent phrases' word vectors, patches, or small numbers
    init: Literal["keywords", "data", "uniform"] = "keywords"
    vocabulary: int = Field(4096, ge=16)  # words learned from the captions
    context_length: int = Field(24, ge=4)  # words, with start and end
    steps: Positive = 400  # nine times through 2 700 pairs; TL;DR's is 20 times
    train_batch_size: Positive = 64
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)  # TL;DR's
    warmup: int = Field(20, ge=0)  # steps
    shift: int = Field(4, ge=0)  # pixels that a training batch is moved by, at most
    # then on clean captions: a parquet with image and caption, or a WebDataset folder
    clean: str | None = None
    clean_steps: Positive = 100
    clean_lr: float = Field(3e-4, gt=0)
    # share of the pool's pairs, with all that share their image or caption
    validation: float = Field(0.05, gt=0, lt=1)
    # a sample by hash(seed, uid) above that
    max_pairs: Positive = 200_000
    checkpoint_every: Positive = 100  # steps
    log_every: Positive = 50  # steps; between two validations
    num_captions: Positive = 1
    min_new_tokens: int = Field(1, ge=0)
    max_new_tokens: Positive = 20
    top_p: float | None = Field(None, gt=0, le=1)  # nucleus sampling; None: the likeliest word
    repetition_penalty: float = Field(1.1, gt=0)
    batch_size: Positive = 64
    # torch threads of a training: part of the result, so that it is the same anywhere
    threads: Positive = 1
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of heads {self.heads}")
        if self.top_p is None and self.num_captions > 1:
            raise ValueError(
                f"num_captions {self.num_captions} of the likeliest words are all the same: set a"
                " top_p to sample"
            )
        return self

    def trained(self) -> dict[str, Any]:
        """What decides the trained model, of what decides the result."""
        return {k: v for k, v in self.claimed().items() if k not in self.decoding}


CaptionerConfig = Annotated[HfCaptioner | CodebookCaptioner, Field(discriminator="kind")]


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
