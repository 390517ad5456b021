"""Artifact: an evaluation set, prepared once for every part of the pool.

    items.parquet     item: the keys, sorted; items are numbered in this order
    hashes.npy        uint64 (n,) of all variants, sorted, each item's distinct
    places.npy        int64 (n,): the row of each in the next two
    thumbnails.npy    uint8 (n, 192)
    owners.npy        int32 (n,): the item's number
    embeddings.npy    float32 (m, d), by item, its own and its mirror image's; where asked for
    embedded.npy      int32 (m,): the items' numbers
    captions.parquet  caption, item: the normalised ones, the lowest key of each; where asked for

Making it takes about 60 CPU milliseconds per item at the default config, and 17 kB on disk.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.claims import digest
from curate.contamination.embedding import Matrix, embedder, space
from curate.contamination.items import EvaluationSet, Item, open_set
from curate.contamination.variants import Fingerprint, Variants
from curate.dataset import Dataset
from curate.duplicates.hamming import Hashes, Indices
from curate.duplicates.leaders import BYTES
from curate.shards import THREADS
from models.base import Image
from schemas.configs import EvaluationItems

log = logging.getLogger(__name__)
RUN = 64  # items whose images are in memory at once
LAYOUT = ("image_size", "resize_mode", "resize_only_if_bigger", "max_pixels")
_SIGNS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Looked:
    """What became of an item's image: why it has none, or its variants and what is embedded."""

    item: Item
    error: str | None = None
    prints: list[Fingerprint] = field(default_factory=list)
    views: list[Image] = field(default_factory=list)


def unit_of(config: EvaluationItems) -> str:
    """The folder of the set's artifacts in _artifacts/."""
    return f"evaluation_{config.name}"


def prepare(data: Dataset, config: EvaluationItems) -> str:
    """Make the artifact of a set unless it is there; returns its key.

    The key depends on the config, the files of the set, how the pool's images are laid out and the
    space of its embeddings. Raises ValueError for a set that is none, or without one image.
    """
    found = open_set(config.path)
    stored = data.config_of("samples")
    state = [config.claimed(), found.state(), {k: stored.get(k) for k in LAYOUT}]
    key = digest([*state, space(data, config) if config.embeddings else ""])
    data.artifact(unit_of(config), key, lambda made: _make(data, config, found, Path(made)))
    return key


def _make(data: Dataset, config: EvaluationItems, found: EvaluationSet, folder: Path) -> None:
    variants = Variants(config, data.config_of("samples"))
    embed = embedder(data, config) if config.embeddings else None
    keys: list[str] = []
    captions: list[tuple[str, int]] = []
    errors: list[tuple[str, str]] = []
    embeddings: list[Matrix] = []
    embedded: list[int] = []
    hashes: list[Hashes] = []
    thumbnails: list[bytes] = []
    for run in _looked(found.items(), variants, embed is not None):
        for seen in run:
            number = len(keys)
            keys.append(seen.item.key)
            captions += [(text, number) for text in seen.item.captions]
            errors += [(seen.item.key, seen.error)] if seen.error else []
            hashes.append(np.array([h for h, _ in seen.prints], np.uint64))
            thumbnails.append(b"".join(t for _, t in seen.prints))
            embedded += [number] * len(seen.views)
        if embed is not None:
            embeddings.append(embed([view for seen in run for view in seen.views]))
    _tell(config, len(keys), errors)
    rank = _ranks(keys)
    pq.write_table(
        pa.table({"item": pa.array(sorted(keys), pa.string())}), folder / "items.parquet"
    )
    _save_variants(folder, hashes, thumbnails, rank)
    if embeddings:
        _save_embeddings(folder, np.concatenate(embeddings), rank[np.array(embedded, np.int64)])
    if config.caption_words is not None:
        _save_captions(folder, captions, rank, config.caption_words)


def _looked(items: Iterable[Item], variants: Variants, embed: bool) -> Iterator[list[Looked]]:
    """Runs of items, looked at in threads: OpenCV lets others work."""

    def look(item: Item) -> Looked:
        try:
            image = variants.image(item.image())
        except (ValueError, OSError) as error:
            return Looked(item, " ".join(str(error).split()) or type(error).__name__)
        views = [variants.stored(v) for v in variants.views(image)] if embed else []
        return Looked(item, None, variants.fingerprints(image), views)

    waiting = iter(items)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="variants") as pool:
        while run := list(islice(waiting, RUN)):
            yield list(pool.map(look, run))


def _tell(config: EvaluationItems, items: int, errors: list[tuple[str, str]]) -> None:
    """One line about what is missing. Raises ValueError where everything is."""
    first = ": ".join(errors[0]) if errors else "it is empty"
    said = f"evaluation set {config.name!r} ({config.path})"
    if len(errors) == items:
        raise ValueError(f"{said}: none of its {items} images can be used; the first: {first}")
    if errors:
        log.warning("%s: %d of %d images cannot be used (%s)", said, len(errors), items, first)


def _ranks(keys: list[str]) -> Indices:
    """The place of each key among the sorted ones."""
    ranks = np.empty(len(keys), np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return ranks


def _save_variants(
    folder: Path, hashes: list[Hashes], thumbnails: list[bytes], rank: Indices
) -> None:
    owners = np.repeat(rank, [len(h) for h in hashes]).astype(np.int32)
    every = np.concatenate(hashes)
    places = np.lexsort((owners, every))
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, BYTES)
    np.save(folder / "hashes.npy", every[places])
    np.save(folder / "places.npy", places)
    np.save(folder / "thumbnails.npy", pixels)
    np.save(folder / "owners.npy", owners)


def _save_embeddings(folder: Path, found: Matrix, owners: Indices) -> None:
    """Unit rows by item; what is no direction is left out."""
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    order = np.argsort(owners, kind="stable")
    order = order[(lengths[order, 0] > 0) & np.isfinite(lengths[order, 0])]
    np.save(folder / "embeddings.npy", (found[order] / lengths[order]).astype(np.float32))
    np.save(folder / "embedded.npy", owners[order].astype(np.int32))


def _save_captions(
    folder: Path, captions: list[tuple[str, int]], rank: Indices, words: int
) -> None:
    lowest: dict[str, int] = {}
    for text, number in captions:
        plain = normalised(text)
        if len(plain.split()) >= words:
            lowest[plain] = min(lowest.get(plain, len(rank)), int(rank[number]))
    columns = {"caption": sorted(lowest), "item": [lowest[c] for c in sorted(lowest)]}
    schema = pa.schema([("caption", pa.string()), ("item", pa.int32())])
    pq.write_table(pa.table(columns, schema=schema), folder / "captions.parquet")


def normalised(caption: str) -> str:
    """Compatible forms as one, without case, signs as blanks, blanks as one."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", caption).casefold())
    return _SIGNS.sub(" ", folded).strip()
