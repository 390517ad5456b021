"""The configs of the duplicate finders, one class each, told apart by `kind`, and of the evaluation
sets that a pool has to be clean of.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Config, Name, Positive, refuse_unknown


class ExactDuplicates(Config):
    """Equal bytes (`sha256`), equal pixels as they are stored, or equal URL; equal pairs cannot
    meet, they share their uid.
    """

    kind: Literal["exact"] = "exact"
    by: Literal["sha256", "pixels", "url"] = "sha256"

    @property
    def name(self) -> str:
        return self.kind if self.by == "sha256" else self.by


class BlankDuplicates(Config):
    """Images without information (a hash with too few ones or zeros) whose thumbnails hardly
    differ: blank and near-constant ones, each colour a group of its own.
    """

    kind: Literal["blank"] = "blank"
    max_rms: float = Field(4.0, ge=0)  # as PerceptualDuplicates'
    min_distinct_bits: int = Field(4, ge=0, le=32)  # what the perceptual finder leaves out

    @property
    def name(self) -> str:
        return self.kind


class PerceptualDuplicates(Config):
    """64-bit hashes within a Hamming radius, and thumbnails that hardly differ: all such pairs."""

    version: ClassVar[int] = 3

    kind: Literal["perceptual"] = "perceptual"
    by: Literal["phash", "dhash"] = "phash"
    radius: int = Field(8, ge=0, le=16)
    # root mean squared difference of the 8 x 8 RGB thumbnails, 0 to 255: the hash does not see
    # colours. None: the hash alone
    max_rms: float | None = Field(9.0, ge=0)
    # bits in which the other one of phash and dhash may differ; None: it is not looked at
    check_radius: int | None = Field(None, ge=0, le=64)
    # a hash with fewer ones or zeros says nothing: a blank image has the mean's bit alone, the
    # plainest flags have 6
    min_distinct_bits: int = Field(4, ge=0, le=32)

    @property
    def name(self) -> str:
        return self.kind


class SemanticDuplicates(Config):
    """Stored embeddings whose cosine is at least 1 - eps, compared within clusters of spherical
    k-means (SemDeDup, 2303.09540).
    """

    runtime: ClassVar[frozenset[str]] = frozenset({"block_rows"})
    kind: Literal["semantic"] = "semantic"
    name: Name = "semantic"
    embeddings: Name = "bootstrap"  # of which scorer
    column: Literal["image_emb", "text_emb"] = "image_emb"
    eps: float = Field(0.05, ge=0, le=1)
    # group: a pair goes when one that stays is near. code: SemDeDup's released code: a pair goes
    # when any pair before it in its cluster is near, the farthest from the centroid first, whether
    # that one stays or not
    mode: Literal["group", "code"] = "group"
    clusters: int | None = Field(None, ge=1)  # None: round(sqrt(N)), at most 50 000 (SemDeDup's)
    # nearest other clusters that are searched too: two of one kind can lie on either side of a
    # border
    neighbours: int = Field(0, ge=0)
    train_rows: Positive = 262_144
    iterations: Positive = 20
    block_rows: Positive = 2048  # of one block of a cluster's cosines
    seed: int = 0

    @model_validator(mode="after")
    def _neighbours_of_groups(self) -> Self:
        if self.mode == "code" and self.neighbours:
            raise ValueError(
                f"{self.name}: neighbours is {self.neighbours} with mode: code, whose order is that"
                " of one cluster: set neighbours to 0, or mode to group"
            )
        return self


class TextDuplicates(Config):
    """Captions that are equal once normalised, or whose sets of word n-grams have a Jaccard
    similarity of at least `threshold`; candidates by MinHash LSH.
    """

    kind: Literal["text"] = "text"
    name: Name = "text"
    threshold: float = Field(0.8, gt=0, le=1)
    ngram: Positive = 3  # words; a shorter caption is its one n-gram
    num_perm: int = Field(128, ge=16, le=512)  # hashes of a MinHash
    seed: int = 1


DuplicatesConfig = Annotated[
    ExactDuplicates | BlankDuplicates | PerceptualDuplicates | SemanticDuplicates | TextDuplicates,
    Field(discriminator="kind"),
]


class EvaluationItems(Config):
    """An evaluation set that the pool must not hold: its images, and its captions where asked."""

    name: Name
    # a folder of images, a parquet of images or of paths, or WebDataset shards; any fsspec URL
    path: str
    # Hamming radius of pHash and rms of the thumbnails, as PerceptualDuplicates'
    radius: int = Field(8, ge=0, le=16)
    max_rms: float = Field(9.0, ge=0)
    mirror: bool = True  # mirrored images match too
    # largest share of a side that a crop may have taken and still match; 0: only whole images
    crop: float = Field(0.1, ge=0, le=0.3)
    # a scorer of kind `clip` with image_emb: images with a cosine of min_similarity match too
    embeddings: Name | None = None
    min_similarity: float = Field(0.95, gt=-1, le=1)
    # captions of at least so many words that are equal once normalised match too; None: no captions
    caption_words: int | None = Field(None, ge=1)


class DedupConfig(Config):
    """Which finders, and who of a group stays: the highest `keep_by`, then the lowest uid."""

    version: ClassVar[int] = 2

    finders: tuple[DuplicatesConfig, ...] = (
        ExactDuplicates(),
        BlankDuplicates(),
        PerceptualDuplicates(),
    )
    # SQL over one row of `pairs`; NULL sorts last
    keep_by: str = "samples__original_width * samples__original_height"
    # survivors: a pair that quality dropped never represents a group
    among: Literal["survivors", "downloaded"] = "survivors"
    # finders whose edges are written and remove nobody
    only_find: tuple[Name, ...] = ()
    # share of the pairs that stay: the semantic finder's eps is lowered until as many do
    keep: float | None = Field(None, gt=0, le=1)
    # the captions of removed copies become further captions of the pair that stays
    # (captions_copies), for `choose: {use: all}`
    extra_captions: bool = True
    # pairs that match one of their items go first, and represent nobody
    evaluations: tuple[EvaluationItems, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        finders, sets = ([unit.name for unit in u] for u in (self.finders, self.evaluations))
        for what, names in (("finders", finders), ("evaluations", sets)):
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"two {what} are named {twice[0]!r}: give one another `name`")
        refuse_unknown("dedup.only_find", list(self.only_find), finders, "finders")
        semantic = [f.name for f in self.finders if f.kind == "semantic"]
        deciding = [name for name in semantic if name not in self.only_find]
        if self.keep is not None and len(deciding) != 1:
            raise ValueError(
                "dedup.keep lowers the eps of one finder of kind semantic that removes; there are"
                f" {len(deciding)}"
            )
        return self
