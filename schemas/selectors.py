"""The configs of the selectors, one class each, told apart by `kind`, and of what training sees of
the pairs that they select. Each asks for a share of the pool, a count, or as many as another subset
has.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Config, Fraction, Name, Positive


class ChooseCaption(Config):
    """Which caption training sees."""

    # concat: the original and a generated one in one text (TL;DR's refinement); all: each of them,
    # and those of removed copies, as variants of equal weight
    use: Literal["original", "generated", "best", "all", "concat"] = "original"
    # a scorer's name for `best`, such as clip: the caption with its highest score
    by: str | None = None
    separator: str = "; "  # of concat; TL;DR's released code has this one
    # of concat: tokens of text that the trainer's context holds, and `words` or the open_clip model
    # whose tokenizer counts them; None: as the recipe's trainer has it
    max_tokens: int | None = Field(None, ge=1)
    tokenizer: str | None = None
    reserve: Fraction = 0.5  # of concat: share of the tokens that the generated one has for certain

    @model_validator(mode="after")
    def _best_needs_by(self) -> Self:
        if (self.use == "best") != (self.by is not None):
            raise ValueError("`use: best` names its scorer in `by`, and nothing else does")
        return self


class _Selector(Config):
    runtime: ClassVar[frozenset[str]] = frozenset({"choose"})  # it changes no selection
    name: Name
    choose: ChooseCaption | None = None  # None: the recipe's
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

    runtime: ClassVar[frozenset[str]] = frozenset({"choose"})
    kind: Literal["all"] = "all"
    name: Name = "all"
    choose: ChooseCaption | None = None  # None: the recipe's
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


class CodebookSelector(_Selector):
    """TL;DR's selection (2305.20087): clusters of bags of codes, a quota per cluster by largest
    remainder, a hash-seeded draw within.
    """

    kind: Literal["codebook"] = "codebook"
    name: Name = "codebook"
    codes: Name = "codebook"  # captioner whose codes_<name> say what is in an image
    # of how often each code occurs in the image: the square root of its share (Hellinger), or
    # tf-idf; both to unit length
    feature: Literal["sqrt", "tfidf"] = "sqrt"
    clusters: int | None = Field(None, ge=1)  # None: round(sqrt(N)), at most 3000 (TL;DR's N)
    iterations: Positive = 20
    train_rows: Positive = 256_000
    # before the clusters: only the pairs with the highest values of this column of `pairs`, such as
    # scores_itm__itm_prob, this share of the pool; TL;DR's released list most likely had 0.5.
    # `fraction` stays a share of the whole pool: 0.25 here is half of each cluster
    itm_by: str | None = None
    itm_top_fraction: float = Field(0.5, gt=0, le=1)
    # TL;DR's released code, for comparison only: integer codes taken for coordinates, PCA to 256
    # dimensions, k-means of 1 000 clusters; it finds layouts, not contents
    released_code: bool = False


class D4Selector(_Selector):
    """D4 (2308.12284): SemDeDup, then SSL prototypes, the pairs farthest from a new centroid."""

    kind: Literal["d4"] = "d4"
    name: Name = "d4"
    embeddings: Name = "bootstrap"
    column: Literal["image_emb", "text_emb"] = "image_emb"
    dedup_fraction: float = Field(0.75, gt=0, le=1)  # that semantic deduplication leaves (R_dedup)
    clusters: int | None = Field(None, ge=1)
    iterations: Positive = 20
    train_rows: Positive = 256_000


class DensitySelector(_Selector):
    """Density-based pruning (DBP, 2401.04578): more of complex clusters, the farthest points of
    each.
    """

    kind: Literal["density"] = "density"
    name: Name = "density"
    embeddings: Name = "bootstrap"
    column: Literal["image_emb", "text_emb"] = "image_emb"
    clusters: int | None = Field(None, ge=1)  # the paper's: 500 of LAION, 100 of DataComp medium
    iterations: Positive = 20
    train_rows: Positive = 256_000
    temperature: float = Field(0.1, gt=0)  # the paper's; its code has 0.5
    neighbours: Positive = 20  # nearest centroids that the distance between clusters is a mean of
    min_samples: int = Field(1, ge=0)  # of each cluster, as far as it has them


class BalanceSelector(_Selector):
    """MetaCLIP's balancing (2309.16671): a caption's terms are looked up in a list of metadata, and
    pairs of frequent terms are thinned to about `t` of each.
    """

    kind: Literal["balance"] = "balance"
    name: Name = "balance"
    # a text file with one entry a line, in the case that captions have it; None: the pool's own
    # frequent uni- and bigrams
    metadata: str | None = None
    # a folder with WordNet's index.noun, such as /usr/share/wordnet: its lemmas are entries too
    wordnet: str | None = None
    min_count: Positive = 5  # captions with a term of the pool's own, for it to be an entry
    # pairs of one entry that stay, about: 20 000 of MetaCLIP's 400 M; None: what gives the size.
    # Where it is given, it can leave fewer than the size
    t: float | None = Field(None, gt=0)


class NclNormSimSelector(_Selector):
    """The best by negCLIPLoss, of these the most like reference images (2405.19547)."""

    kind: Literal["ncl_normsim"] = "ncl_normsim"
    name: Name = "ncl_normsim"
    by: str = "scores_ncl__ncl_score"  # column of `pairs`
    by_fraction: float = Field(0.3, gt=0, le=1)  # of the pool, by that
    embeddings: Name = "clip"  # whose image_emb is compared
    # .npy or .safetensors of image embeddings (n, d); None: 50 000 of the pool's own, drawn by
    # hash, a pair not compared with itself
    references: str | None = None
    norm: Literal["2", "inf"] = "inf"


class KCenterSelector(_Selector):
    """Greedy k-center: each next pair is the farthest from all that are taken (Gonzalez 1985; Sener
    and Savarese, 1708.00489).
    """

    kind: Literal["kcenter"] = "kcenter"
    name: Name = "kcenter"
    embeddings: Name = "bootstrap"
    column: Literal["image_emb", "text_emb"] = "image_emb"
    sample_rows: Positive = 100_000  # a larger pool is split by hash into groups of about so many


class FacilitySelector(_Selector):
    """Facility location by lazy greedy: the pairs that are most like all others (Minoux 1978)."""

    kind: Literal["facility"] = "facility"
    name: Name = "facility"
    embeddings: Name = "bootstrap"
    column: Literal["image_emb", "text_emb"] = "image_emb"
    sample_rows: Positive = 10_000  # a larger pool is split by hash into groups of about so many


SelectorConfig = Annotated[
    AllSelector
    | RandomSelector
    | TopSelector
    | ClusterSelector
    | CodebookSelector
    | D4Selector
    | DensitySelector
    | BalanceSelector
    | NclNormSimSelector
    | KCenterSelector
    | FacilitySelector,
    Field(discriminator="kind"),
]
