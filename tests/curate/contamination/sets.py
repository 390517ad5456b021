"""Evaluation sets and pools of real pictures for the tests of contamination."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curate.dataset import Dataset
from curate.resize import Pictures
from schemas.configs import DownloadConfig
from tests.tiny import Row, tiny_dataset, whole

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "brick", "gravel", "grass", "camera", "coins")
CUTS = ((0.0, 0.5), (0.5, 1.0))  # of each side of a photo: four pictures of one


@cache
def photos() -> tuple[Pixels, ...]:
    """36 RGB pictures of at most 300 pixels: windows of scikit-image's photos."""
    from skimage import data

    found = []
    for name in NAMES:
        image = np.asarray(getattr(data, name)())
        rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
        for top, bottom in CUTS:
            for left, right in CUTS:
                found.append(scaled(cut(rgb, top, 1 - bottom, left, 1 - right), 300))
    return tuple(found)


def cut(image: Pixels, top: float, bottom: float, left: float, right: float) -> Pixels:
    """An image without these shares of its sides."""
    height, width = image.shape[:2]
    rows = slice(round(top * height), height - round(bottom * height))
    return np.ascontiguousarray(image[rows, round(left * width) : width - round(right * width)])


def scaled(image: Pixels, side: float) -> Pixels:
    """An image whose longer side is this long."""
    scale = side / max(image.shape[:2])
    size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def jpg(image: Pixels, quality: int = 92) -> bytes:
    return encoded(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def png(image: Pixels) -> bytes:
    return encoded(image, ".png", [])


def encoded(image: Pixels, kind: str, options: Sequence[int]) -> bytes:
    return bytes(cv2.imencode(kind, image[..., ::-1], list(options))[1].tobytes())


def pair(url: str, body: bytes, **more: Any) -> Row:
    """A pair as the download stores it by default."""
    picture = Pictures(DownloadConfig()).resized(body)
    assert picture.error is None
    return Row(url, phash=picture.phash, thumbnail=picture.thumbnail, **more)


def pool(root: Any, rows: Sequence[Row], parts: int = 2) -> Dataset:
    return tiny_dataset(root, rows, parts)


def folder(root: Path, files: Mapping[str, bytes]) -> str:
    """These files below a folder; returns its path."""
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return str(root)


def tar(members: Mapping[str, bytes]) -> bytes:
    """A tar with these members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def matches(data: Dataset, table: str, rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """By url and method: the item that a pair matched."""
    urls = {row.uid: row.url for row in rows}
    return {(urls[m["uid"]], m["method"]): m["item"] for m in whole(data, table)}
