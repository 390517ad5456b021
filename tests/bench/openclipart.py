"""Debian's openclipart as a pool of the web in small: 8 000 drawings whose titles are often the
name of a collection, a file or another language, with masses of duplicates; and two clean
evaluation sets that are held out of it.

A title describes its drawing where all its words (of three letters or more, at least one) stand in
the drawing's file name as well, which people chose one by one. Clean is such a title that no other
drawing has.

    held_out.parquet    400 of the clean ones by hash: image, caption (its title)
    folders.parquet     up to 30 by hash of each top folder with at least 60: image, label (the
                        folder's name); folders of leftovers are no class
    pool.parquet        all others: path, caption (the title as it stands), folder

Whatever looks like a held-out drawing (32 x 32 pixels of RGB that differ by at most 6 levels, root
mean square) is in none of them. An image is shown over white, at most 512 pixels a side.
"""

from __future__ import annotations

import hashlib
import html
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.pictures import unpacked

HELD_OUT, PER_FOLDER, LEAST_FOLDER = 400, 30, 60
LEFTOVERS = ("unsorted", "special")
SIDE, SMALL, NEAR = 512, 32, 6.0
WORD = re.compile(r"[a-z]{3,}")
TITLE = re.compile(r"<dc:title>(.*?)</dc:title>", re.S)
WORK = re.compile(r"<(?:cc:)?Work.*?</(?:cc:)?Work>", re.S)
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def prepare(cache: Path) -> Path:
    """The folder with the three files, made once."""
    folder = cache / "openclipart-pool"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        print("preparing the openclipart pool", flush=True)
        _make(folder, *(unpacked(cache, f"openclipart-{kind}") for kind in ("png", "svg")))
        (folder / "ready").touch()
    return folder


def _make(folder: Path, pngs: Path, svgs: Path) -> None:
    pngs, svgs = pngs / "usr/share/openclipart/png", svgs / "usr/share/openclipart/svg"
    names = sorted(str(p.relative_to(pngs))[:-4] for p in pngs.rglob("*.png"))
    names = [name for name in names if not (pngs / f"{name}.png").is_symlink()]
    titles = {name: title_of(svgs / f"{name}.svg") for name in names}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shown = pool.map(partial(_shown, pngs), names, chunksize=32)
        images = {n: found for n, found in zip(names, shown, strict=True) if found is not None}
    names = sorted(images, key=_hash)
    held_out = _apart(_clean(names, titles), images)[:HELD_OUT]
    classes = _classes([n for n in names if n not in set(held_out)], images, held_out)
    out = set(held_out) | set(classes)
    near = _near([n for n in names if n not in out], sorted(out), images)
    pool_names = sorted(n for n in names if n not in out and n not in near)
    print(
        f"{len(pool_names)} in the pool, {len(held_out)} held out, {len(classes)} in "
        f"{len(set(classes.values()))} folders, {len(near)} like those",
        flush=True,
    )
    _write(folder / "held_out.parquet", held_out, images, caption=titles)
    _write(folder / "folders.parquet", sorted(classes), images, label=classes)
    rows = {
        "path": [str(pngs / f"{n}.png") for n in pool_names],
        "caption": [titles[n] for n in pool_names],
        "folder": [n.split("/")[0] for n in pool_names],
    }
    pq.write_table(pa.table(rows), folder / "pool.parquet")


def title_of(svg: Path) -> str:
    """The title in a drawing's metadata, "" for none."""
    if not svg.exists():
        return ""
    text = svg.read_text("utf-8", "replace")
    work = WORK.search(text)
    found = TITLE.search(work.group(0) if work else text)
    return html.unescape(found.group(1)).strip() if found else ""


def describes(title: str, name: str) -> bool:
    """Whether a title's words all stand in the file name."""
    words = WORD.findall(title.casefold())
    named = WORD.findall(Path(name).name.casefold())
    return bool(words) and set(words) <= set(named)


def _clean(names: list[str], titles: dict[str, str]) -> list[str]:
    folded = [titles[n].casefold() for n in names]
    once = {t for t in folded if folded.count(t) == 1}
    return [n for n in names if titles[n].casefold() in once and describes(titles[n], n)]


def _classes(
    names: list[str], images: dict[str, tuple[bytes, Pixels]], held_out: list[str]
) -> dict[str, str]:
    """Class by name, of drawings that look like no held-out one and like no other of them."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(name.split("/")[0], []).append(name)
    found: dict[str, str] = {}
    taken = list(held_out)
    for top, some in sorted(by_folder.items()):
        if top in LEFTOVERS or len(some) < LEAST_FOLDER:
            continue
        near = _near(some, taken, images)
        chosen = _apart([n for n in some if n not in near], images)[:PER_FOLDER]
        found |= dict.fromkeys(chosen, top.replace("_", " "))
        taken += chosen
    return found


def _apart(names: list[str], images: dict[str, tuple[bytes, Pixels]]) -> list[str]:
    """Names in their order, without those that look like an earlier one."""
    kept: list[str] = []
    for name in names:
        if not kept or not _near([name], kept, images):
            kept.append(name)
    return kept


def _near(names: list[str], others: list[str], images: dict[str, tuple[bytes, Pixels]]) -> set[str]:
    """Those names that look like one of the others."""
    right = np.array([images[n][1] for n in others], np.float32).reshape(len(others), -1)
    squares, found = (right**2).sum(axis=1), set()
    for start in range(0, len(names), 512):
        some = names[start : start + 512]
        left = np.array([images[n][1] for n in some], np.float32).reshape(len(some), -1)
        apart = (left**2).sum(axis=1)[:, None] + squares[None, :] - 2 * left @ right.T
        near = (apart <= NEAR**2 * left.shape[1]).any(axis=1)
        found |= {n for n, is_near in zip(some, near, strict=True) if is_near}
    return found


def _shown(root: Path, name: str) -> tuple[bytes, Pixels] | None:
    """The drawing as PNG over white, and small; None where it cannot be decoded."""
    cv2.setNumThreads(1)
    path = root / f"{name}.png"
    pixels = opaque(path)
    if pixels is None:
        return None
    scale = min(1.0, SIDE / max(pixels.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(pixels, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", pixels)[1].tobytes(), np.asarray(small, np.uint8)


def opaque(path: Path) -> Any:
    """BGR over white; the largest ones come reduced, by libvips."""
    import pyvips

    try:
        image = pyvips.Image.thumbnail(str(path), 2 * SIDE, size="down")
        if image.hasalpha():
            image = image.flatten(background=255)
        pixels = image.colourspace("srgb").cast("uchar").numpy()
    except pyvips.Error:
        return None
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _write(
    path: Path, names: list[str], images: dict[str, tuple[bytes, Pixels]], **texts: dict[str, str]
) -> None:
    columns: dict[str, Any] = {key: [of[n] for n in names] for key, of in texts.items()}
    columns["image"] = [images[n][0] for n in names]
    pq.write_table(pa.table({"name": names} | columns), path)
