"""The pyarrow schema of every table, in the order of the way. The names are a contract: queries and
users rely on them.

Every row has a `uid`: 32 hex characters, the first 128 bits of sha256(url + NUL + caption). Tables
that are made per
unit are called `<table>_<name>`; `schema_of` finds the schema of any table by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pyarrow as pa

UID = pa.field("uid", pa.string(), nullable=False)
CAPTION_ID = pa.field("caption_id", pa.string(), nullable=False)

URLS = pa.schema(
    [
        UID,
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("source_uid", pa.string()),
        # an image that is at hand already lies in a local tar; no column of a list can set these
        # (lists get in_<name>)
        pa.field("tar", pa.string()),
        pa.field("tar_offset", pa.int64()),
        pa.field("tar_size", pa.int64()),
    ]
)

SIGHTINGS = pa.schema(
    [
        UID,
        pa.field("batch", pa.string()),
        pa.field("source", pa.string()),
        pa.field("n", pa.int64()),
    ]
)

# img2dataset's names and types (1.47), then where the bytes are and what they look like
SAMPLES = pa.schema(
    [
        UID,
        pa.field("key", pa.string()),
        pa.field("status", pa.string()),  # success | failed_to_download | failed_to_resize
        pa.field("error_message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("exif", pa.string()),  # JSON
        pa.field("sha256", pa.string()),  # of the bytes that came over the wire
        pa.field("shard", pa.string()),  # tar's file name in images/
        pa.field("offset", pa.int64()),  # of the image's bytes in it
        pa.field("size", pa.int64()),
        pa.field("phash", pa.uint64()),  # of what was encoded, without its border; so the next
        pa.field("dhash", pa.uint64()),
        pa.field("thumbnail", pa.binary()),  # 8 x 8 RGB: 192 bytes
        pa.field("pixel_sha256", pa.string()),  # of the pixels that were encoded and their shape
        pa.field("attempts", pa.int32()),
    ]
)

# what a scorer of a kind writes beside uid, caption_id and error
SCORES: Mapping[str, pa.Schema] = {
    "clip": pa.schema([pa.field("clip_score", pa.float32())]),  # cosine, -1..1
    "bootstrap": pa.schema(
        [
            pa.field("clip_score", pa.float32()),  # cosine by the model that did not see the pair
            pa.field("fold", pa.int16()),  # the fold that was held out
        ]
    ),
    "image_stats": pa.schema(
        [
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("aspect_ratio", pa.float32()),  # longer side / shorter side, of the original
            pa.field("entropy", pa.float32()),  # bits of the grey histogram, 0..8
            pa.field("sharpness", pa.float32()),  # variance of the Laplacian
            pa.field("brightness", pa.float32()),  # mean grey level, 0..255
            pa.field("mean_r", pa.float32()),
            pa.field("mean_g", pa.float32()),
            pa.field("mean_b", pa.float32()),
            pa.field("transparency", pa.float32()),  # share of stored pixels that are not opaque
            # 1..100 as libjpeg counts, of the original: null where that is no JPEG, and where the
            # stored file is not the bytes that came (by their sha256) but our own encoder's
            pa.field("jpeg_quality", pa.int16()),
        ]
    ),
    "faces": pa.schema(
        [
            pa.field("faces", pa.int32()),  # how many
            pa.field("largest_face", pa.float32()),  # its share of the image's area; 0 without one
            # [[left, top, right, bottom], ...] from 0 to 1 of the stored image, largest first
            pa.field("face_boxes", pa.list_(pa.list_(pa.float32()))),
        ]
    ),
    "text_stats": pa.schema(
        [
            pa.field("characters", pa.int32()),
            pa.field("words", pa.int32()),
            pa.field("language", pa.string()),  # ISO 639-1
            pa.field("language_confidence", pa.float32()),
            pa.field("non_letter_share", pa.float32()),
            pa.field("has_url", pa.bool_()),
            pa.field("is_file_name", pa.bool_()),
            pa.field("is_boilerplate", pa.bool_()),
            pa.field(
                "images_per_caption", pa.int64()
            ),  # distinct images in the pool that have this caption
            pa.field(
                "captions_per_image", pa.int64()
            ),  # distinct captions in the pool that this image has
        ]
    ),
    "itm": pa.schema(
        [
            pa.field("itm_prob", pa.float32()),  # of the cross-encoder's "matched", 0..1
            pa.field("itc_score", pa.float32()),  # cosine of its two projections, -1..1
        ]
    ),
    "tmars": pa.schema(
        [
            pa.field("tmars", pa.float32()),  # cosine with the image whose text is covered, -1..1
            pa.field("text_area", pa.float32()),  # share of the image in boxes of text, 0..1
            pa.field("text_boxes", pa.int32()),
            # share of the caption's words that are read in the image, 0..1; null: not read
            pa.field("text_overlap", pa.float32()),
        ]
    ),
    "sieve": pa.schema(
        [
            pa.field("sieve", pa.float32()),  # the largest cosine with a generated caption, -1..1
            pa.field("sieve_caption", pa.string()),  # that caption
        ]
    ),
    "visualness": pa.schema([pa.field("visualness", pa.float32())]),  # 0..2
    "head": pa.schema([pa.field("value", pa.float32())]),
    "ncl": pa.schema([pa.field("ncl_score", pa.float32())]),  # higher is better, at most about 0
    "noise": pa.schema(
        [
            pa.field("loss", pa.float32()),  # contrastive, nats
            pa.field("noise_prob", pa.float32()),  # 0..1, never falls as the loss grows
        ]
    ),
    "near_reference": pa.schema(
        [
            pa.field("near_reference", pa.int32()),  # reference images in the image's cluster
            pa.field("reference_similarity", pa.float32()),  # cosine to the nearest one, -1..1
        ]
    ),
    "pii": pa.schema(
        [
            pa.field("emails", pa.int32()),
            pa.field("phones", pa.int32()),
            pa.field("ip_addresses", pa.int32()),
        ]
    ),
    "word_list": pa.schema(
        [
            pa.field("words_found", pa.int32()),  # entries of the list that occur
            pa.field("words", pa.list_(pa.string())),  # these, as the list has them
        ]
    ),
    "datacomp": pa.schema(
        [
            pa.field("clip_b32_similarity_score", pa.float32()),
            pa.field("clip_l14_similarity_score", pa.float32()),
        ]
    ),
}

CAPTIONS = pa.schema(
    [
        UID,
        CAPTION_ID,
        pa.field("caption", pa.string()),
        pa.field(
            "parent_id", pa.string()
        ),  # the caption it was made from; null: from the image alone
        pa.field("origin", pa.string()),  # generated | fused | split | copy | ...
        pa.field("generator", pa.string()),  # of a copy: the finder that removed its pair
        pa.field("prompt_hash", pa.string()),
        pa.field("decode", pa.string()),  # JSON of the decoding parameters
        pa.field("seed", pa.int64()),
        pa.field("spans", pa.list_(pa.int32())),  # begin, end in the parent, per part
        pa.field("error", pa.string()),
    ]
)

# of the family of captions_<captioner>, and no captioner's: the captions of removed copies, whose
# caption_id is the removed pair's uid
COPIES = "captions_copies"

# codes_<captioner>: codes; codes_<selector>, of the codebook selector codes_<selector>_clusters:
# cluster
CODES = pa.schema([UID, pa.field("codes", pa.list_(pa.int16())), pa.field("cluster", pa.int32())])

DUPLICATES = pa.schema(
    [
        UID,
        pa.field("other_uid", pa.string(), nullable=False),
        pa.field("distance", pa.float32()),
        # true: other_uid is a member of uid's star, all of whose members count as the same;
        # false: all members of uid's star and of other_uid's are near each other
        pa.field("member", pa.bool_(), nullable=False),
        pa.field("method", pa.string()),
    ]
)

# pairs that show, or say, what an item of an evaluation set does
MATCHES = pa.schema(
    [
        UID,
        pa.field("item", pa.string(), nullable=False),  # its key, path or row in the set
        pa.field("distance", pa.float32()),
        pa.field("method", pa.string()),  # phash | embedding | caption
    ]
)

# of the pairs that the selector had to choose from
NORMSIM = pa.schema([UID, pa.field("normsim", pa.float32())])

DECISIONS = pa.schema(
    [UID, pa.field("keep", pa.bool_(), nullable=False), pa.field("reason", pa.string())]
)

# duplicate_of: the pair that stays for it
DEDUP = pa.schema([*DECISIONS, pa.field("duplicate_of", pa.string())])

RULES_FAILED = pa.schema([UID, pa.field("rule", pa.string()), pa.field("value", pa.string())])

SUBSET = pa.schema(
    [
        UID,
        pa.field("weight", pa.float32()),
        pa.field("cluster", pa.int32()),
        pa.field("rank", pa.int64()),
        pa.field(
            "captions",
            pa.list_(
                pa.struct(
                    [
                        pa.field("caption_id", pa.string()),
                        pa.field("text", pa.string()),
                        pa.field("weight", pa.float32()),
                    ]
                )
            ),
        ),
    ]
)

METRICS = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("subset", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("step", pa.int64()),
        pa.field("metric", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("n", pa.int64()),
    ]
)

TABLES: Mapping[str, pa.Schema] = {
    "urls": URLS,
    "sightings": SIGHTINGS,
    "samples": SAMPLES,
    "decisions_quality": DECISIONS,
    "rules_failed": RULES_FAILED,
    "decisions_dedup": DEDUP,
    "decisions_select": DECISIONS,
    "metrics": METRICS,
}
FAMILIES: Mapping[str, pa.Schema] = {
    "captions_": CAPTIONS,
    "codes_": CODES,
    "duplicates_": DUPLICATES,
    "matches_": MATCHES,
    "normsim_": NORMSIM,
    "subset_": SUBSET,
}
# what `pairs` starts with; then scores_* and decisions_*
PAIRS_LEAD = ("urls", "samples")


def scores(kind: str, embedding_dims: Mapping[str, int] | None = None) -> pa.Schema:
    """Schema of `scores_<name>` for a scorer of this kind; `embedding_dims` maps image_emb,
    text_emb, and where it is cross-fitted own_image_emb, own_text_emb, to its length.
    """
    embeddings = [
        pa.field(column, pa.list_(pa.float16(), size))
        for column, size in (embedding_dims or {}).items()
    ]
    return pa.schema([UID, CAPTION_ID, *SCORES[kind], *embeddings, pa.field("error", pa.string())])


def schema_of(table: str) -> pa.Schema | None:
    """The schema of a table by its name; None for `scores_*`, whose scorer's kind says it."""
    if table in TABLES:
        return TABLES[table]
    return next((schema for prefix, schema in FAMILIES.items() if table.startswith(prefix)), None)


def clean(text: str | None) -> str:
    """A caption or URL as UTF-8 can hold it: unpaired surrogates become U+FFFD, null becomes ""."""
    return (
        "" if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def _hex128(*fields: str) -> str:
    return hashlib.sha256("\0".join(fields).encode()).hexdigest()[:32]


def uid_of(url: str, caption: str | None) -> str:
    """Identity of a pair: 128 bits of sha256(url + NUL + caption), as 32 hex characters."""
    return _hex128(clean(url), clean(caption))


def caption_id_of(
    uid: str, generator: str, prompt_hash: str, decode: str, seed: int, index: int
) -> str:
    """Identity of a generated caption; an original caption's is its pair's uid."""
    return _hex128(uid, generator, prompt_hash, decode, str(seed), str(index))


def draw(seed: int, uid: str) -> float:
    """A uniform number in [0, 1) that depends on the seed and the pair, never on a position."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{uid}".encode()).digest()[:7], "big") / 2**56
