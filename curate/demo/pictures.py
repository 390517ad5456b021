"""Drawings as image files: rendered, encoded, altered; kept by what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curate.demo.drawings import svg_folder
from schemas.tables import draw

if TYPE_CHECKING:
    from PIL.Image import Image

Format = Literal["png", "jpeg", "webp"]
SIZES = (96, 320)  # pixels
MAX_CUT = 0.02  # of the side, off each edge of a near-duplicate
FEW = 64  # pictures that are not worth a second process


@dataclass(frozen=True)
class Picture:
    """How to make one file: a square render of `size` pixels, cut by `crop`, then scaled."""

    code: str
    size: int
    format: Format
    quality: int  # of JPEG and WebP
    transparent: bool = False  # else on white
    crop: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # left, top, right, bottom
    scale: float = 1.0

    @property
    def file(self) -> str:
        """The file's name: a hash of all the fields."""
        return f"{hashlib.sha256(repr(self).encode()).hexdigest()[:20]}.{self.format}"


def original(code: str, seed: int) -> Picture:
    """A drawing as the web would have it, 96-320 px.

    40 % are PNG (half of them transparent), 35 % JPEG, 25 % WebP.
    """
    kind = draw(seed, f"{code}/format")
    chosen: Format = "png" if kind < 0.4 else "jpeg" if kind < 0.75 else "webp"  # noqa: PLR2004
    return Picture(
        code,
        _between(*SIZES, draw(seed, f"{code}/size")),
        chosen,
        _between(75, 95, draw(seed, f"{code}/quality")),
        transparent=kind < 0.2,  # noqa: PLR2004
    )


def clean(code: str, seed: int) -> Picture:
    """A drawing for validation: 224 px on white, PNG or JPEG."""
    chosen: Format = "png" if draw(seed, f"{code}/format") < 0.5 else "jpeg"  # noqa: PLR2004
    return Picture(code, 224, chosen, 92)


def near_copy(picture: Picture, seed: int) -> Picture:
    """The same in another format on white, 0.6-1.5 times as large, up to 2 % cut off each side."""
    others: list[Format] = [f for f in ("jpeg", "png", "webp") if f != picture.format]
    left, top, right, bottom = (
        round(MAX_CUT * draw(seed, f"{picture.code}/near/{side}"), 4)
        for side in ("left", "top", "right", "bottom")
    )
    return Picture(
        picture.code,
        picture.size,
        others[int(2 * draw(seed, f"{picture.code}/near/format"))],
        _between(50, 90, draw(seed, f"{picture.code}/near/quality")),
        crop=(left, top, right, bottom),
        scale=round(0.6 + 0.9 * draw(seed, f"{picture.code}/near/scale"), 3),
    )


def make(pictures: Sequence[Picture], folder: Path, processes: int) -> None:
    """Write the pictures that `folder` does not hold yet, each beside and then renamed.

    About 7 ms of one core per picture, nearly all of it resvg, which holds the interpreter:
    so processes, not threads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}
    missing = [p for p in dict.fromkeys(pictures) if p.file not in there]
    if processes < 2 or len(missing) < FEW:  # noqa: PLR2004
        write_pictures(missing, folder)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    shares = [missing[i::processes] for i in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(write_pictures, shares, [folder] * processes))


def write_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Make these pictures one after another."""
    for picture in pictures:
        write_beside(folder / picture.file, encode(picture))


def write_beside(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def encode(picture: Picture) -> bytes:
    """The picture's bytes: equal fields give equal bytes."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    rendered = svg_to_bytes(
        svg_path=str(svg_folder() / f"{picture.code}.svg"),
        width=picture.size,
        background=None if picture.transparent else "#ffffff",
        skip_system_fonts=True,
    )
    image = Image.open(BytesIO(rendered)).convert("RGBA" if picture.transparent else "RGB")
    buffer = BytesIO()
    _alter(image, picture).save(buffer, **_options(picture))
    return buffer.getvalue()


def _options(picture: Picture) -> dict[str, Any]:
    if picture.format == "png":
        return {"format": "PNG", "compress_level": 3}
    if picture.format == "jpeg":
        return {"format": "JPEG", "quality": picture.quality}
    return {"format": "WEBP", "quality": picture.quality, "method": 2}


def _alter(image: Image, picture: Picture) -> Image:
    from PIL.Image import Resampling

    width, height = image.size
    left, top, right, bottom = picture.crop
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    size = (round(width * picture.scale), round(height * picture.scale))
    if size == image.size and not any(picture.crop):
        return image
    return image.resize(size, Resampling.BICUBIC, box=box, reducing_gap=None)


def _between(low: int, high: int, share: float) -> int:
    """The integer at this share, 0 <= share < 1, of the range low..high."""
    return low + int((high - low + 1) * share)
