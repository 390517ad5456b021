"""Drawings with planted copies: what the bench of copies looks for, and what is truly a copy.

The base are openclipart's PNGs with a side of at least 32, over white, at most 512 pixels a side,
and OpenMoji's drawings at 512 pixels, the first of all of them by a hash. Some of them, the first
by another hash, get one copy each, changed in one of six ways in turn:

    reencoded   JPEG of quality 50 to 95        resized     0.5 to 2 times as large
    cropped     up to 10 % of each dimension    mirrored    left to right
    logo        another drawing, 12 % of the    grey        without colours
                width, in a corner

All but the first are PNGs, so that each way is seen alone. Natural duplicates are drawings of one
OpenMoji family (skin tones, genders, directions), openclipart's of one file name without its digits
(`star_05pt07step` is `star_pt_step`, of which there are a thousand), and any two whose 32 x 32 RGB
thumbnails differ by at most 8 levels, root mean square. A copy has the duplicates of its source.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curate.demo.drawings import all_drawings, svg_folder
from tests.bench.openclipart import opaque
from tests.bench.pictures import clip_art

SIDE, LEAST, SMALL, NEAR = 512, 32, 32, 8.0
CROP, LOGO = 0.1, 0.12
LETTERS = 3  # that a file name without digits has at least, to be one of a family
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Origin:
    """Where a drawing of the base comes from: a PNG, or a code of OpenMoji."""

    source: str
    name: str  # what its caption says
    category: str
    family: str

    @property
    def key(self) -> str:
        return hashed("base", self.source)[:16]


@dataclass(frozen=True)
class Planted:
    """A file of the set. way: "" for one of the base; `base` is that of its source."""

    path: Path
    base: int
    way: str
    caption: str


@dataclass(frozen=True)
class PlantedSet:
    """The files, and of each drawing of the base what it is a duplicate of."""

    files: list[Planted]
    families: list[str]
    near: set[tuple[int, int]]  # lower first

    def same(self, one: int, other: int) -> bool:
        """Whether two drawings of the base, or one with itself, are truly duplicates."""
        family = self.families[one]
        alike = bool(family) and family == self.families[other]
        return one == other or alike or (min(one, other), max(one, other)) in self.near


def planted(cache: Path, base: int, sources: int) -> PlantedSet:
    """So many drawings and copies, as files under `cache`, made once."""
    folder = cache / "copies"
    origins = _base(cache, folder / "base", base)
    drawn = sorted(range(len(origins)), key=lambda i: hashed("copy", origins[i].key))[:sources]
    files = [
        Planted(folder / "base" / f"{o.key}.png", i, "", o.name) for i, o in enumerate(origins)
    ]
    todo = [(files[base].path, tuple(WAYS)[turn % len(WAYS)]) for turn, base in enumerate(drawn)]
    paths = _spread(partial(_copied, folder), todo)
    for (_, way), at, path in zip(todo, drawn, paths, strict=True):
        # not its source's caption: an encoder that is trained on both would learn who copies whom
        files.append(Planted(path, at, way, origins[at].category))
    thumbnails = np.stack(_spread(_thumbnail, [file.path for file in files[: len(origins)]]))
    return PlantedSet(files, [o.family for o in origins], near_pairs(thumbnails, NEAR))


def near_pairs(thumbnails: Pixels, limit: float) -> set[tuple[int, int]]:
    """Pairs of rows, lower first, that differ by at most `limit`, root mean square."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32) - 128
    squares, found = (flat**2).sum(axis=1), set()
    for start in range(0, len(flat), 1024):
        some = flat[start : start + 1024]
        apart = squares[start : start + 1024, None] + squares[None, :] - 2 * some @ flat.T
        rows, others = np.nonzero(apart <= limit**2 * flat.shape[1])
        found |= {
            (int(a) + start, int(b)) for a, b in zip(rows, others, strict=True) if a + start < b
        }
    return found


# ------------------------------------------------------------------------------------ the base


def _base(cache: Path, folder: Path, count: int) -> list[Origin]:
    """The first `count` drawings by hash that can be shown, which are files then."""
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted([*_openclipart(cache), *_openmoji()], key=lambda origin: origin.key)
    found: list[Origin] = []
    while len(found) < count and order:
        lacking = count - len(found)
        some, order = order[:lacking], order[lacking:]
        shown = _spread(partial(_written, folder), some)
        found += [origin for origin, fine in zip(some, shown, strict=True) if fine]
    return found


def _openclipart(cache: Path) -> list[Origin]:
    found = []
    for path in clip_art(cache):
        words = " ".join(re.findall(r"[^\W\d_]+", path.stem))
        stem = re.sub(r"\d+", "", path.stem)
        family = f"openclipart/{stem}" if len(re.findall(r"[^\W_]", stem)) >= LETTERS else ""
        found.append(Origin(str(path), words, path.parent.name.replace("_", " "), family))
    return found


def _openmoji() -> list[Origin]:
    return [
        Origin(drawing.code, drawing.name, drawing.category, f"openmoji/{drawing.family}")
        for drawing in all_drawings()
    ]


def _written(folder: Path, origin: Origin) -> bool:
    """Whether the drawing is in the folder; made where it is not."""
    path, none = folder / f"{origin.key}.png", folder / f"{origin.key}.none"
    if not path.exists() and not none.exists():
        drawn = _drawing(origin.source)
        if drawn is None or min(drawn.shape[:2]) < LEAST:
            none.touch()
        else:
            _write(path, drawn)
    return path.exists()


def _drawing(source: str) -> Pixels | None:
    """BGR over white, None where it cannot be decoded."""
    if not source.endswith(".png"):
        return rendered(source, SIDE)
    pixels = opaque(Path(source))
    return None if pixels is None else scaled(pixels, min(1.0, SIDE / max(pixels.shape[:2])))


def rendered(code: str, side: int) -> Pixels:
    """One of OpenMoji's drawings, BGR on white."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    path = str(svg_folder() / f"{code}.svg")
    png = svg_to_bytes(svg_path=path, width=side, background="#ffffff", skip_system_fonts=True)
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB"), np.uint8)
    return np.ascontiguousarray(pixels[..., ::-1])


# ------------------------------------------------------------------------------------ copies


def _copied(folder: Path, todo: tuple[Path, str]) -> Path:
    """The copy of a file in one way, made where there is none."""
    source, way = todo
    path = folder / way / f"{source.stem}{'.jpg' if way == 'reencoded' else '.png'}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        draw = np.random.default_rng(int(hashed(way, source.stem)[:8], 16))
        pixels = np.asarray(cv2.imread(str(source), cv2.IMREAD_COLOR), np.uint8)
        _write(path, WAYS[way](pixels, draw), quality=int(draw.integers(50, 96)))
    return path


def _write(path: Path, pixels: Pixels, quality: int = 0) -> None:
    told = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    beside = path.with_suffix(".part")
    beside.write_bytes(cv2.imencode(path.suffix, pixels, told)[1].tobytes())
    beside.rename(path)


def scaled(pixels: Pixels, scale: float) -> Pixels:
    """Resized by area where that makes it smaller, else by cubics."""
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def _resized(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    return scaled(pixels, float(2 ** draw.uniform(-1, 1)))


def _cropped(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Up to CROP of each side's length, anywhere."""
    bounds = []
    for side in pixels.shape[:2]:
        cut, where = draw.uniform(0, CROP), draw.uniform()
        bounds.append((round(cut * where * side), side - round(cut * (1 - where) * side)))
    (top, bottom), (left, right) = bounds
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _with_logo(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """One of OpenMoji's drawings over a corner, a hundredth of the width away from it."""
    height, width = pixels.shape[:2]
    side = min(height, max(4, round(LOGO * width)))
    codes = sorted(path.stem for path in svg_folder().glob("*.svg"))
    logo = rendered(codes[int(draw.integers(len(codes)))], 128)
    logo = np.asarray(cv2.resize(logo, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    away = min(round(width / 100), height - side)
    top = away if draw.random() < 0.5 else height - side - away
    left = away if draw.random() < 0.5 else width - side - away
    found = pixels.copy()
    inside = found[top : top + side, left : left + side]
    found[top : top + side, left : left + side] = np.where(
        (logo < 250).any(axis=2, keepdims=True), logo, inside
    )
    return found


def _grey(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


WAYS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "reencoded": lambda pixels, draw: pixels,
    "resized": _resized,
    "cropped": _cropped,
    "mirrored": lambda pixels, draw: np.ascontiguousarray(pixels[:, ::-1]),
    "logo": _with_logo,
    "grey": _grey,
}


# ------------------------------------------------------------------------------------ help


def hashed(purpose: str, name: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(f"{purpose}/{name}".encode()).hexdigest()


def _thumbnail(path: Path) -> Pixels:
    pixels = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA), np.uint8)


def _spread(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Work on all items by two processes."""
    with ProcessPoolExecutor(
        2, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        return list(pool.map(work, items, chunksize=16))
