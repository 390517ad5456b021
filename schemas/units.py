"""The configs of captioners, trainers and evaluations, one class each, told apart by `kind`; those
of scorers, duplicate finders and selectors are in scorers.py, duplicates.py and selectors.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

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


CaptionerConfig = HfCaptioner


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
