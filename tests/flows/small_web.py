"""A tiny pool on loopback, with copies, near copies, dead links and empty words, and its recipe."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from curate.compress import compress
from curate.dataset import Dataset
from curate.dedup import dedup
from curate.download import download
from curate.export import export
from curate.filter import filter_pairs
from curate.ingest import ingest
from curate.score import score
from schemas.configs import (
    AllSelector,
    BootstrapScorer,
    ClusterSelector,
    CurationConfig,
    DownloadConfig,
    ExportConfig,
    ImageStatsScorer,
    IngestConfig,
    RandomSelector,
    Rule,
    TextStatsScorer,
    TopSelector,
    Workers,
)
from tests.fault_server import FaultServer, fault_server, picture

COLOURS = {"red": (40, 40, 220), "green": (40, 180, 40), "blue": (200, 60, 30), "black": (9, 9, 9)}
PICTURES = 32
COPIES = 4
STAGES = ("ingest", "download", "score", "filter", "dedup", "compress", "export")
Pair = tuple[str, str]


@dataclass(frozen=True)
class SmallWeb:
    """The server and the pairs that a list names. missing: paths that answer 404 until served."""

    server: FaultServer
    pairs: list[Pair]
    missing: list[str]


def drawing(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A coloured shape on a background that no other number has; BGR, 80 x 96."""
    pixels = cv2.imdecode(np.frombuffer(picture(number, 96, 80), np.uint8), cv2.IMREAD_COLOR)
    colour = list(COLOURS.values())[number % 4]
    if number % 2:
        cv2.circle(pixels, (48, 40), 16, colour, -1)
    else:
        cv2.rectangle(pixels, (34, 26), (62, 54), colour, -1)
    return np.asarray(pixels, np.uint8)


def encoded(number: int, quality: int = 92, suffix: str = ".jpg") -> bytes:
    """A drawing as it comes over the wire."""
    knob = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}[suffix]
    return bytes(cv2.imencode(suffix, drawing(number), [knob, quality])[1])


def caption(number: int) -> str:
    return f"a {list(COLOURS)[number % 4]} {('square', 'circle')[number % 2]}, number {number}"


@contextmanager
def small_web() -> Iterator[SmallWeb]:
    """Serve the pool for the time of the block: 48 pairs, 5 of which cannot be had."""
    with fault_server() as server:
        pairs = [(server.serve(f"/{i}.jpg", encoded(i)), caption(i)) for i in range(PICTURES)]
        for i in range(COPIES):
            copy = server.serve(f"/copy/{i}.jpg", encoded(i))
            near = server.serve(f"/near/{i}.webp", encoded(8 + i, 60, ".webp"), "image/webp")
            pairs += [(copy, f"once more: {caption(i)}"), (near, f"nearly {caption(8 + i)}")]
        missing = [f"/missing/{i}.jpg" for i in range(4)]
        pairs += [(server.url(path), f"gone for now {path}") for path in missing]
        pairs += [(server.serve("/page.jpg", b"<!doctype html><p>moved</p>"), "a page")]
        pairs += [(server.url("/flaky/1"), "a shy picture"), (server.url("/0.jpg"), "IMG_2031.jpg")]
        pairs += [(server.url("/5.jpg"), "")]
        yield SmallWeb(server, pairs, missing)


def add(web: SmallWeb, count: int) -> list[Pair]:
    """So many further pictures; returns their pairs."""
    numbers = range(100, 100 + count)
    return [(web.server.serve(f"/{i}.jpg", encoded(i)), caption(i)) for i in numbers]


def write_list(path: Path, pairs: Sequence[Pair], shuffled: int | None = None) -> Path:
    """A CSV of the pairs, two of them named twice; rows in the order of a seed, or as they come."""
    rows = [*pairs, *pairs[:2]]
    if shuffled is not None:
        random.Random(shuffled).shuffle(rows)
    text = io.StringIO()
    csv.writer(text).writerows([("url", "caption"), *rows])
    path.write_text(text.getvalue())
    return path


SMALL = BootstrapScorer(
    steps=3,
    warmup=1,
    train_batch_size=8,
    vocabulary=32,
    context_length=8,
    image_size=16,
    patch_size=16,
    width=16,
    layers=1,
    text_width=16,
    text_layers=1,
    embed_dim=16,
)
EMPTY_WORDS = Rule(
    name="empty_words",
    drop_if="scores_text_stats__is_file_name OR scores_text_stats__is_boilerplate",
)


def recipe(
    root: Any, lists: Any, web: SmallWeb, *, trained: bool = True, workers: int = 0, **changes: Any
) -> CurationConfig:
    """All stages over the tiny pool, but recaption and train. lists: path or paths of the list.

    trained: with the bootstrap scorer and what stands on it; else a threshold on the pixels.
    """
    paths = [str(p) for p in lists] if isinstance(lists, list | tuple) else str(lists)
    score_of = "scores_bootstrap__clip_score" if trained else "scores_image_stats__sharpness"
    last = ClusterSelector(fraction=0.6, clusters=4) if trained else RandomSelector(fraction=0.6)
    knobs: dict[str, Any] = {
        "root": str(root),
        "ingest": (IngestConfig(path=paths, batch="first", source="small", part_rows=10),),
        "download": downloading(web),
        "scorers": (ImageStatsScorer(), TextStatsScorer(), *((SMALL,) if trained else ())),
        "rules": (
            EMPTY_WORDS,
            Rule(name="low_score", value=score_of, keep_top=0.8, of="survivors"),
        ),
        "selectors": (
            last.model_copy(update={"name": "picked"}),
            RandomSelector(name="control", like="picked", pool="downloaded"),
            TopSelector(by=score_of, fraction=0.5),
            AllSelector(),
        ),
        "exports": (ExportConfig(subset="picked", shard_rows=7),),
        "workers": Workers(count=workers),
    }
    return CurationConfig(**(knobs | changes))


def downloading(web: SmallWeb, **knobs: Any) -> DownloadConfig:
    """Only this server may be reached."""
    return DownloadConfig(
        allow_hosts=(web.server.address,), image_size=64, retry_wait_s=0.01, **knobs
    )


def write_recipe(path: Path, config: CurationConfig) -> Path:
    """The recipe as YAML."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def run_all(config: CurationConfig, until: str = "export") -> Dataset:
    """The stages in the order of flows/curation.py, without Prefect, up to and with `until`."""
    data, workers = Dataset(config.root), config.workers
    steps = {
        "ingest": lambda: [ingest(data, source) for source in config.ingest],
        "download": lambda: download(data, config.download, workers),
        "score": lambda: score(data, config.scorers, workers),
        "filter": lambda: filter_pairs(data, config.rules, workers),
        "dedup": lambda: config.dedup and dedup(data, config.dedup, workers),
        "compress": lambda: compress(data, config.selectors, config.choose, workers),
        "export": lambda: [export(data, e, workers) for e in config.exports],
    }
    for name in STAGES[: STAGES.index(until) + 1]:
        steps[name]()
    return data
