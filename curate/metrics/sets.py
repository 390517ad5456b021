"""Evaluation sets: parquet files, WebDataset folders and folders named by class.

WebDataset folders are ours, img2dataset's or in CLIP_benchmark's layout (root/test/*.tar).

An image is a function that gives its bytes, so that a set of any size is decoded as it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.shards import decode_or_error
from curate.wds import IMAGES, Folder, Sample
from models.base import Image

Source = Callable[[], bytes]
CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"  # CLIP_benchmark


def pixels(images: Sequence[Source]) -> Iterator[Image]:
    """Decoded images, one after another.

    Raises ValueError for one that cannot be decoded: a set with a hole is another set.
    """
    for number, source in enumerate(images):
        image, error = decode_or_error(source())
        if image is None:
            raise ValueError(
                f"evaluation image {number} cannot be used: {error}; repair or remove it"
            )
        yield image


def captioned(path: str) -> tuple[list[Source], list[list[str]]]:
    """Images and, for each, its captions (at least one).

    Raises ValueError with what was found instead.
    """
    rows = _parquet(path, "caption") if _is_parquet(path) else _shards(path, "txt", _lines)
    images, captions = [], []
    for image, value in rows:
        own = [
            str(c)
            for c in (value if isinstance(value, list) else [value])
            if c is not None and str(c).strip()
        ]
        if own:
            images.append(image)
            captions.append(own)
    if not images:
        raise ValueError(
            f"{path}: no image with a caption; a retrieval set is a parquet with image and "
            "caption, or a WebDataset folder"
        )
    return images, captions


def labelled(path: str) -> tuple[list[Source], list[int], list[str], list[str] | None]:
    """Images, their labels, the classes' names and the set's own templates, if it has some."""
    if not _is_parquet(path) and _has_tars(path):
        return _clip_benchmark(path)
    rows = _parquet(path, "label") if _is_parquet(path) else _class_folders(path)
    if not rows:
        raise ValueError(
            f"{path}: no labelled image; a set is a parquet with image and label, a folder of "
            "class folders, or a WebDataset folder"
        )
    classes = sorted({str(label) for _, label in rows})
    return (
        [image for image, _ in rows],
        [classes.index(str(label)) for _, label in rows],
        classes,
        None,
    )


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


def _parquet(path: str, column: str) -> list[tuple[Source, Any]]:
    if not Path(path).is_file():
        raise ValueError(
            f"{path}: no such file; an evaluation's `path` is a local parquet file or a folder"
        )
    names = pq.read_schema(path).names
    if lacking := [c for c in ("image", column) if c not in names]:
        raise ValueError(
            f"{path}: needs the columns image and {column}; it lacks {lacking[0]!r} and has "
            f"{', '.join(names)}"
        )
    table = pq.read_table(path, columns=["image", column])
    folder = Path(path).parent
    return [
        (_source(i, folder), v)
        for i, v in zip(table["image"].to_pylist(), table[column].to_pylist(), strict=True)
    ]


def _source(image: Any, folder: Path) -> Source:
    """Bytes, a path beside the file, or the {bytes, path} of a Hugging Face parquet."""
    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if isinstance(image, str):
        return (folder / image).read_bytes
    return partial(bytes, image or b"")


def _class_folders(path: str) -> list[tuple[Source, Any]]:
    suffixes = {f".{s}" for s in IMAGES}
    if not Path(path).is_dir():
        raise ValueError(
            f"{path}: no such folder; an evaluation's `path` is a local parquet file or a folder"
        )
    folders = sorted(p for p in Path(path).iterdir() if p.is_dir())
    return [
        (file.read_bytes, folder.name.replace("_", " "))
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in suffixes
    ]


# --------------------------------------------------------------------------------------- WebDataset


def _has_tars(path: str) -> bool:
    return any(any(Path(p).glob("*.tar")) for p in (path, f"{path}/test")) or "://" in path


def _folder(path: str) -> Folder:
    """The folder itself, or its `test` in CLIP_benchmark's layout."""
    return Folder(f"{path}/test" if any(Path(f"{path}/test").glob("*.tar")) else path)


def _lines(raw: bytes) -> list[str]:
    return [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]


def _shards(path: str, member: str, parse: Callable[[bytes], Any]) -> list[tuple[Source, Any]]:
    folder = _folder(path)
    whole = [s for s in folder.samples() if s.image is not None and member in s.texts]
    return [(_member(folder, sample), parse(sample.texts[member])) for sample in whole]


def _member(folder: Folder, sample: Sample) -> Source:
    offset, size = sample.image or (0, 0)
    return partial(folder.read, sample.tar, offset, size)


def _clip_benchmark(path: str) -> tuple[list[Source], list[int], list[str], list[str] | None]:
    rows = _shards(path, "cls", int)
    names, templates = (_optional(path, name) for name in (CLASS_NAMES, TEMPLATES))
    if not rows:
        raise ValueError(
            f"{path}: no sample with an image and a .cls member; classification sets in WebDataset "
            "form have both"
        )
    if names is None or max(label for _, label in rows) >= len(names):
        raise ValueError(
            f"{path}: {CLASS_NAMES} names {len(names or [])} classes, labels go up to "
            f"{max(label for _, label in rows)}; one name per line"
        )
    return [image for image, _ in rows], [label for _, label in rows], names, templates


def _optional(path: str, name: str) -> list[str] | None:
    folder = _folder(path)
    for place in (folder.path, folder.path.rpartition("/")[0]):
        if folder.fs.exists(f"{place}/{name}"):
            return _lines(folder.fs.cat_file(f"{place}/{name}"))
    return None
