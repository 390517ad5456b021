"""Pictures to serve: photos made of scikit-image's, and Debian's openclipart drawings.

Both are got once by the ordinary clients of their registries (uv, apt-get) into a cache folder,
where the made ones stay too. Nothing here is part of what is measured.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CACHE = Path.home() / ".cache" / "curate-bench"
SOURCES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
    *("motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "ihc.png"),
)
PHOTO = (2000, 1500)
BOMB = 100_000_000  # pixels from which a drawing counts as one
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def photos(cache: Path, count: int) -> list[Path]:
    """JPEGs of 2 000 x 1 500 at quality 90, mostly 400 to 900 kB: a warped crop of one of nine
    photos each, with other light and a camera's grain, without which an enlarged crop would have
    too little detail. A third has a camera's EXIF; one in twenty is stored turned (orientation 6).
    """
    make = partial(_photo, sources=_sources(cache), width=PHOTO[0], height=PHOTO[1], quality=90)
    return _made(cache / "photos-2000x1500", count, make)


def small_photos(cache: Path, count: int, width: int, height: int, quality: int) -> list[Path]:
    """The same in small."""
    sources = _sources(cache)
    make = partial(_photo, sources=sources, width=width, height=height, quality=quality)
    return _made(cache / f"photos-{width}x{height}-{quality}", count, make)


def drawings(cache: Path, count: int, seed: int = 0) -> list[Path]:
    """RGBA PNGs of openclipart, drawn by a seed. All that are bombs are among 2 000 or more of
    them, else as many as there would be in so small a part, at least one on each side of 170 Mpx.
    """
    root = unpacked(cache, "openclipart-png")
    listed = cache / "openclipart-rgba.json"
    if not listed.exists():
        listed.write_text(json.dumps(_rgba(root)))
    found: dict[str, int] = json.loads(listed.read_text())
    draw = random.Random(seed)
    bombs = sorted(name for name, pixels in found.items() if pixels > BOMB)
    if count < 2000:
        over = [name for name in bombs if found[name] > 170_000_000]
        under = [name for name in bombs if name not in over]
        some = max(1, round(len(under) * count / 2000))
        bombs = draw.sample(under, some) + draw.sample(over, 1)
    plain = sorted(name for name, pixels in found.items() if pixels <= BOMB)
    picked = bombs + draw.sample(plain, count - len(bombs))
    draw.shuffle(picked)
    return [root / name for name in picked]


def clip_art(cache: Path) -> list[Path]:
    """All PNGs of openclipart that are files of their own, sorted."""
    root = unpacked(cache, "openclipart-png")
    return sorted(p for p in root.rglob("*.png") if p.is_file() and not p.is_symlink())


def _sources(cache: Path) -> Path:
    """The folder of the photos in scikit-image's wheel; its code is not used."""
    target = cache / "scikit-image"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = cache / "scikit-image.tmp"
        command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(beside)]
        subprocess.run([*command, "scikit-image"], check=True)
        beside.rename(target)
    return target / "skimage" / "data"


def unpacked(cache: Path, package: str) -> Path:
    """The folder with the files of a Debian package, got once."""
    target = cache / ("openclipart" if package == "openclipart-png" else package)
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], check=True, cwd=cache)
        archive = max(cache.glob(f"{package}_*.deb"))
        beside = cache / f"{package}.tmp"
        subprocess.run(["dpkg", "-x", str(archive), str(beside)], check=True)
        beside.rename(target)
    return target


def _rgba(root: Path) -> dict[str, int]:
    """Pixels of each RGBA drawing by its path, links aside; only headers are read."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    found = {}
    for path in sorted(root.rglob("*.png")):
        if path.is_symlink():
            continue
        with Image.open(path) as image:
            if image.mode == "RGBA":
                found[str(path.relative_to(root))] = image.width * image.height
    return found


def _made(folder: Path, count: int, make: Callable[[int], bytes]) -> list[Path]:
    """Files 0 to count - 1 of a folder, those that lack made by two processes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:06d}.jpg" for i in range(count)]
    lacking = [i for i, path in enumerate(paths) if not path.exists()]
    if lacking:
        print(f"making {len(lacking)} pictures in {folder}", flush=True)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for i, encoded in zip(lacking, pool.map(make, lacking, chunksize=8), strict=True):
                beside = paths[i].with_suffix(".tmp")
                beside.write_bytes(encoded)
                beside.rename(paths[i])
    return paths


def _photo(number: int, sources: Path, width: int, height: int, quality: int) -> bytes:
    cv2.setNumThreads(1)
    draw = np.random.default_rng(number)
    pixels = _warped(_read(sources / SOURCES[number % len(SOURCES)]), draw, width, height)
    light = float(draw.uniform(0.85, 1.15)), float(draw.uniform(-12, 12))
    pixels = cv2.convertScaleAbs(pixels, alpha=light[0], beta=light[1])
    grain = draw.normal(0, draw.uniform(3, 6), (height // 2, width // 2))
    grain = cv2.resize(grain.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    pixels = np.clip(pixels + grain[..., None], 0, 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return _with_exif(encoded, number)


def _read(path: Path) -> Pixels:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is no picture: has scikit-image moved its photos?")
    return np.asarray(pixels, np.uint8)


def _warped(pixels: Pixels, draw: np.random.Generator, width: int, height: int) -> Pixels:
    """A crop of the target's shape, seen a little from the side."""
    rows, columns = pixels.shape[:2]
    share = draw.uniform(0.6, 1.0)
    wide = share * min(columns, rows * width / height)
    high = wide * height / width
    left, top = draw.uniform(0, columns - wide), draw.uniform(0, rows - high)
    corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]]) + np.array([left, top])
    corners += draw.uniform(-0.03, 0.03, (4, 2)) * (wide, high)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    view = cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))
    warped = cv2.warpPerspective(
        pixels, view, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(warped, np.uint8)


def _with_exif(jpeg: bytes, number: int) -> bytes:
    """A camera's tags in every third, turned in every twentieth, else the file as it is."""
    from PIL import Image

    turned = number % 20 == 0
    if number % 3 and not turned:
        return jpeg
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = "Bench", f"Camera {number % 7}"
    tags[0x0112] = 6 if turned else 1
    tags[0x0132] = f"2024:{1 + number % 12:02d}:{1 + number % 28:02d} 12:00:00"
    block = tags.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
