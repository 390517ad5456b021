"""The configs of the scorers, one class each, told apart by `kind`.

A scorer with `pixels` False looks at no image. One with `of` is computed from what another scorer
has stored, by its name, after the pass over the images.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Config, Fraction, Name, Positive


class ClipScorer(Config):
    """Cosine of an open_clip model's image and text embeddings (CLIPScore without its factor)."""

    version: ClassVar[int] = 2  # image_emb of images whose caption is empty
    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["clip"] = "clip"
    name: Name = "clip"
    model: str = "ViT-B-32"  # open_clip architecture, or hf-hub:org/name
    # tag, or path of a checkpoint; None with an hf-hub: model
    pretrained: str | None = "datacomp_xl_s13b_b90k"
    # auto: bf16 on a GPU that has it, else fp32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Positive = 256
    embeddings: bool = True


class BootstrapScorer(Config):
    """A small open_clip model trained on the pool itself, cross-fitted: no pair is scored by a
    model that saw it.
    """

    version: ClassVar[int] = 2  # own_image_emb, own_text_emb
    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size", "refit"})
    kind: Literal["bootstrap"] = "bootstrap"
    name: Name = "bootstrap"
    folds: int = Field(2, ge=2, le=20)
    steps: Positive = 150  # per fold; on a few thousand pairs more of them learn the noise by heart
    train_batch_size: Positive = 128
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: int = Field(15, ge=0)
    shift: int = Field(3, ge=0)  # pixels that a training batch is moved by, at most
    # a sample by hash(seed, uid) above that: the model must not grow with the pool
    max_pairs: Positive = 200_000
    vocabulary: int = Field(4096, ge=16)  # words learned from the pool's captions
    context_length: int = Field(24, ge=4)
    image_size: Positive = 48
    patch_size: Positive = 16
    width: Positive = 128
    layers: Positive = 2
    text_width: Positive = 128  # of the text transformer
    text_layers: int = Field(0, ge=0)  # 0: a bag of words
    embed_dim: Positive = 128
    batch_size: Positive = 256
    embeddings: bool = True
    # torch threads of a training: part of the result, so that it is the same anywhere
    threads: Positive = 1
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"


class ImageStatsScorer(Config):
    """What the pixels say without a model."""

    version: ClassVar[int] = 2  # jpeg_quality
    kind: Literal["image_stats"] = "image_stats"
    name: Name = "image_stats"


class FacesScorer(Config):
    """Faces as boxes, by libfacedetection, whose weights come with its package. Found to be blurred
    (`blur_faces` of an export) or counted, never to be told apart.
    """

    kind: Literal["faces"] = "faces"
    name: Name = "faces"
    # confidence of a box. Measured on pasted faces: 0.3 finds 2 % more of them and boxes cats too,
    # 0.6 misses one of six of 16 pixels
    threshold: float = Field(0.4, ge=0.2, le=1)
    min_side: Positive = 8  # pixels of the stored image; in smaller ones nobody is recognised
    # the longer side of what the detector sees: 256 finds faces from 24 pixels of a 256 px image
    # on, 384 from 16, 512 from 12, at 7, 15 and 28 ms; it warns above 960
    detector_side: int = Field(384, ge=64, le=960)


class TextStatsScorer(Config):
    """What the caption says without a model, and how often it and the image occur in the whole
    pool.
    """

    pixels: ClassVar[bool] = False
    kind: Literal["text_stats"] = "text_stats"
    name: Name = "text_stats"


class ItmScorer(Config):
    """Image-text matching of a BLIP checkpoint: the probability that the two belong together, by
    its cross-encoder (BLIP, section 3; 35 tokens as CapFilt has them).
    """

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["itm"] = "itm"
    name: Name = "itm"
    model: str  # such as Salesforce/blip-itm-base-coco, or a folder
    # [ENC] in the place of [CLS], as the head was trained; its demo and transformers have [CLS]
    enc_token: bool = False
    max_tokens: int = Field(35, ge=4)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Positive = 32


class SieveScorer(Config):
    """How near the caption comes to what a captioner says of the image: the largest cosine, by a
    sentence encoder, without phrases such as "a photo of" (Mahmoud et al. 2024, Sieve, section 3).
    """

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["sieve"] = "sieve"
    name: Name = "sieve"
    # the paper's is BLIP-base before its tuning on COCO, which the hub does not have in this format
    captioner: str = "Salesforce/blip-image-captioning-base"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    prompt: str = "a picture of"  # BLIP's own, not part of a caption
    captions: Positive = 8  # of an image; so the next three
    top_p: float = Field(0.9, gt=0, le=1)
    min_tokens: int = Field(5, ge=0)  # without the prompt; the released code counts it
    max_tokens: Positive = 20
    repetition_penalty: float = Field(1.1, gt=0)  # BLIP's released code, where it samples
    max_text_tokens: int = Field(256, ge=4)  # that the encoder reads; all-MiniLM-L6-v2's own
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Positive = 128  # captions at once


class VisualnessScorer(Config):
    """How visual a caption is: 1 - cosine of its embedding and that of one image of random pixels
    (TIP-CLIP, section 3; a decision at 0.83 for vanilla CLIP, 0.79 for theirs).
    """

    pixels: ClassVar[bool] = False
    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["visualness"] = "visualness"
    name: Name = "visualness"
    model: str = "ViT-B-32"
    pretrained: str | None = "datacomp_xl_s13b_b90k"
    null_seed: int = 0  # of the random pixels
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Positive = 256


class HeadScorer(Config):
    """A linear or MLP head on a scorer's stored image embeddings: LAION's aesthetic predictors as
    they are published (activation none), an NSFW or a watermark head, your own.
    """

    pixels: ClassVar[bool] = False
    kind: Literal["head"] = "head"
    name: Name  # such as aesthetic
    of: Name = "clip"  # whose embeddings
    # safetensors, or a state dict of torch (.pth), with layers `0.weight`, `0.bias`, `2.weight` ...
    # in this order, whatever stands before the numbers
    weights: str
    activation: Literal["none", "relu", "gelu", "sigmoid"] = "relu"  # between layers
    output: Literal["none", "sigmoid"] = "none"


class NclScorer(Config):
    """negCLIPLoss: the cosine less what the pair's image and caption have with others (Wang et al.
    2024, equation 2), by a scorer's stored embeddings.
    """

    pixels: ClassVar[bool] = False
    runtime: ClassVar[frozenset[str]] = frozenset({"refit"})
    kind: Literal["ncl"] = "ncl"
    name: Name = "ncl"
    of: Name = "clip"
    temperature: float = Field(0.01, gt=0)  # OpenAI's L/14; 0.07 for DFN-P
    batch: Positive = 32_768  # pairs that a pair is compared with
    rounds: Positive = 10  # such batches, of which the mean is taken
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"


class NoiseScorer(Config):
    """How likely a pair is a mismatch, by its contrastive loss under a scorer's stored embeddings
    (NEVLP, NLIP: what is learned late is noise), and an estimate of the pool's noise rate that
    says none where there is none.
    """

    pixels: ClassVar[bool] = False
    runtime: ClassVar[frozenset[str]] = frozenset({"refit"})
    kind: Literal["noise"] = "noise"
    name: Name = "noise"
    of: Name = "bootstrap"
    temperature: float = Field(0.07, gt=0)
    batch: Positive = 256  # pairs that a pair is compared with
    rounds: Positive = 4  # such batches, of which the mean is taken
    max_pairs: Positive = 200_000  # that the mixture and the null are fitted on, by hash(seed, uid)
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"


class TmarsScorer(Config):
    """T-MARS: the cosine of the caption and the image with its text covered (Maini et al. 2023,
    algorithm 1), how much of the image is text and, with `recognise`, how much of the caption.
    """

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    kind: Literal["tmars"] = "tmars"
    name: Name = "tmars"
    model: str = "ViT-B-32"
    pretrained: str | None = "openai"  # of the released DataComp file
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: Positive = 256
    # shorter side, in pixels, at which text is looked for; smaller images as they are (paper: 512)
    side: int = Field(512, ge=32)
    box_threshold: Fraction = 0.6  # mean probability of a box's pixels (PaddleOCR's; RapidOCR 0.5)
    ring: Positive = 4  # pixels around a box whose mean fills it; the paper does not say how many
    # letters times their mean probability that must be read in a box that is not as long as a line:
    # the detector takes single things for letters (models/ocr.py). 0: all that is found is text
    min_letters: float = Field(1.6, ge=0)
    recognise: bool = (
        False  # read every box, for text_overlap; each costs as much as an image of 256 px
    )
    max_lines: Positive = 32  # boxes that are read, the largest: a page of text has hundreds


class NearReferenceScorer(Config):
    """How near an image comes to reference images, by a scorer's stored embeddings: how many of
    them its k-means cluster holds (DataComp, image-based filtering), and the cosine of the nearest
    (NormSim-infinity, Wang et al. 2024, section 3.2).
    """

    pixels: ClassVar[bool] = False
    runtime: ClassVar[frozenset[str]] = frozenset({"refit"})
    kind: Literal["near_reference"] = "near_reference"
    name: Name = "near_reference"
    of: Name = "clip"  # whose embeddings; datacomp: those beside DataComp's metadata
    references: str  # .npy or .safetensors, (n, d): the same model's embeddings of other images
    clusters: int | None = Field(None, ge=1)  # None: round(sqrt(N)), at most DataComp's 100 000
    iterations: Positive = 20  # DataComp's
    train_rows: Positive = 256_000  # k-means is fitted on a sample by hash(seed, uid)
    similarity: bool = True  # False: no reference_similarity, which costs n products a pair
    seed: int = 0
    refit: Literal["every_version", "frozen"] = "every_version"


class PiiScorer(Config):
    """Personal data in captions: e-mail and IP addresses, phone numbers."""

    pixels: ClassVar[bool] = False
    kind: Literal["pii"] = "pii"
    name: Name = "pii"
    region: str | None = None  # whose national phone numbers count, such as DE; None: only +49 ...


class WordListScorer(Config):
    """Which entries of a list occur in the caption as whole words: names of classes, metadata
    (MetaCLIP, Xu et al. 2024, section 3.1: substring matching between spaces).
    """

    pixels: ClassVar[bool] = False
    kind: Literal["word_list"] = "word_list"
    name: Name  # such as imagenet21k
    words: str  # text file, one entry a line; a line that begins with # is a comment
    ignore_case: bool = True
    # characters that are words of their own; MetaCLIP's. "": between white space alone
    split_off: str = ",.;:?!`"


ScorerConfig = Annotated[
    ClipScorer
    | BootstrapScorer
    | ImageStatsScorer
    | FacesScorer
    | TextStatsScorer
    | ItmScorer
    | SieveScorer
    | VisualnessScorer
    | HeadScorer
    | NclScorer
    | NoiseScorer
    | NearReferenceScorer
    | TmarsScorer
    | PiiScorer
    | WordListScorer,
    Field(discriminator="kind"),
]
