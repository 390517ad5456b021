"""Decontamination: recall on copies of evaluation images per transformation, and false removals.

    uv run python tests/bench/contamination.py [--quick]

1. The evaluation set: drawings of openclipart and photos, as files in a folder.
2. The pool: of each item a resized, recompressed, cropped, mirrored copy, and others: the rest of
   openclipart, photos of other things and OpenMoji's drawings, all stored as the download stores.
3. `decontaminate`; the last line is JSON.

Openclipart holds copies and recolourings of its own drawings: an other one that matches is listed
with the item, to look at. A small image is one whose shorter side is below 128 as it is served.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curate.contamination.match import decontaminate
from curate.demo.drawings import all_drawings
from curate.demo.pictures import encode, original
from curate.pictures.header import Unusable, read_header
from curate.pictures.pixels import decode_upright
from curate.resize import Pictures
from schemas.configs import DownloadConfig, EvaluationItems
from tests.bench.pictures import CACHE, SOURCES, clip_art, photos
from tests.tiny import Row, tiny_dataset, whole

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
LARGEST = 4_000_000  # pixels: larger drawings cost time and show nothing else
SMALL = 128
CROP = 0.1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 items, 1 500 others")
    quick = parser.parse_args().quick
    items, others = _sources(300 if quick else 2000, 1500 if quick else 12_000)
    with tempfile.TemporaryDirectory(prefix="curate-bench-") as folder:
        _run(Path(folder), items, others)


def _sources(items: int, others: int) -> tuple[list[Path], list[Path | str]]:
    """Files of items; files, or codes of OpenMoji, of the others."""
    draw = random.Random(0)
    found = clip_art(CACHE)
    drawn = [p for p in draw.sample(found, len(found)) if _fits(p)]
    taken = photos(CACHE, 2000)
    mine = [p for n, p in enumerate(taken) if n % len(SOURCES) < 5]  # another photo's are others
    yours = [p for n, p in enumerate(taken) if n % len(SOURCES) >= 5]
    half = items // 2
    chosen = drawn[:half] + draw.sample(mine, items - half)
    rest: list[Path | str] = [*drawn[half:], *yours, *(d.code for d in all_drawings())]
    return chosen, draw.sample(rest, min(others, len(rest)))


def _fits(path: Path) -> bool:
    """No bomb, no dot, and none of the thousands of stars that differ by a ray or two."""
    if re.match(r"star_\d+pt\d+step", path.name):
        return False
    try:
        header = read_header(path.read_bytes(), LARGEST)
    except Unusable:
        return False
    return min(header.width, header.height) >= 32


def _run(folder: Path, items: list[Path], others: list[Path | str]) -> None:
    store, made = Pictures(DownloadConfig()), time.process_time()
    rows, about = [], {}
    (folder / "set").mkdir()
    for number, path in enumerate(items):
        name = f"{number:05d}{path.suffix}"
        shutil.copyfile(path, folder / "set" / name)
        draw = np.random.default_rng(number)
        pixels = _read(path)
        for kind, change in CHANGES.items():
            body, side = _jpeg(change(pixels, draw), 92 if kind in EXACT else _quality(draw))
            row = _row(store, f"{kind}/{number}", body)
            rows.append(row)
            about[row.uid] = (kind, "photo" if path.suffix == ".jpg" else "drawing", side, name)
    for number, other in enumerate(others):
        body = encode(original(other, 0)) if isinstance(other, str) else other.read_bytes()
        row = _row(store, f"other/{number}/{other}", body)
        rows.append(row)
        about[row.uid] = ("other", "", 0, str(other))
    data = tiny_dataset(folder / "pool", rows, 4)
    began = time.process_time()
    print(f"{len(items)} items, {len(rows)} pairs made in {began - made:.0f} CPU s", flush=True)
    decontaminate(data, [EvaluationItems(name="bench", path=str(folder / "set"))])
    seconds = time.process_time() - began
    _report(about, {m["uid"]: m for m in whole(data, "matches_bench")}, len(items), seconds)


def _report(about: dict[str, Any], found: dict[str, Any], items: int, seconds: float) -> None:
    hits: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    for uid, (kind, what, side, name) in about.items():
        hit = uid in found, uid in found and found[uid]["item"] == name
        hits[kind, "all"].append(hit)
        if kind != "other":
            hits[kind, what + (" small" if side < SMALL else "")].append(hit)
    figures: dict[str, Any] = {"items": items, "cpu_s": round(seconds, 1)}
    print(f"{'':24}{'':14}{'n':>7}{'found':>9}{'right item':>12}")
    for (kind, what), of in hits.items():
        recall, right = (float(np.mean([h[k] for h in of])) for k in (0, 1))
        print(f"{kind:24}{what:14}{len(of):7}{recall:9.4f}{right:12.4f}")
        figures[f"{kind} {what}"] = round(recall, 5)
    for uid, (kind, _, _, name) in about.items():
        if kind == "other" and uid in found:
            print("other:", Path(name).name, found[uid]["item"], found[uid]["distance"])
    print(json.dumps(figures))


def _row(store: Pictures, url: str, body: bytes) -> Row:
    picture = store.resized(body)
    status = "success" if picture.error is None else "failed_to_resize"
    return Row(url, status=status, phash=picture.phash, thumbnail=picture.thumbnail)


def _read(path: Path) -> Pixels:
    """BGR, upright, alpha over white, at most 1 000 pixels long."""
    body = path.read_bytes()
    pixels = decode_upright(body, read_header(body, LARGEST), None)
    return _scaled(np.asarray(pixels, np.uint8), min(1.0, 1000 / max(pixels.shape[:2])))


def _jpeg(pixels: Pixels, quality: int) -> tuple[bytes, int]:
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return encoded, min(pixels.shape[:2])


def _quality(draw: np.random.Generator) -> int:
    return int(draw.integers(50, 96))


def _scaled(pixels: Pixels, scale: float) -> Pixels:
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def _resized(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    return _scaled(pixels, float(2 ** draw.uniform(-1, 1)))


def _cropped(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Up to CROP of each side, anywhere."""
    bounds = []
    for side in pixels.shape[:2]:
        cut, where = draw.uniform(0, CROP), draw.uniform()
        bounds.append((round(cut * where * side), side - round(cut * (1 - where) * side)))
    (top, bottom), (left, right) = bounds
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _mirrored(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


CHANGES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "resized": _resized,
    "recompressed": lambda pixels, draw: pixels,
    "resized, recompressed": _resized,
    "cropped": _cropped,
    "mirrored": _mirrored,
    "mirrored and all others": lambda p, draw: _resized(_cropped(_mirrored(p, draw), draw), draw),
}
EXACT = ("resized", "cropped", "mirrored")  # stored at quality 92

if __name__ == "__main__":
    main()
