"""What is planted in the demo's pool: every pair with its picture, its caption and its fault.

Every choice hashes (seed, drawing), never a position. Shares are of the pool's pairs: 20 % swapped
captions, 10 % boilerplate, 10 % near-duplicates, 5 % exact copies, 5 % dead or lying URLs; the rest
is clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from curate.demo.drawings import Drawing, by_family, caption
from curate.demo.pictures import Picture, near_copy, original
from schemas.tables import draw

SWAPPED, BOILERPLATE, NEAR_DUPLICATES, EXACT_COPIES, DEAD = 0.20, 0.10, 0.10, 0.05, 0.05
DEAD_KINDS = ("dead_404", "flaky_500", "lying_html", "truncated", "forbidden_redirect")
EMPTY_CAPTIONS = (
    "IMG_{n:04d}.jpg",
    "DSC{n:05d}",
    "IMG_{n:04d}.JPG",
    "Screenshot_{n:05d}.png",
    "photo_{n}.jpg",
    "image{n}.png",
    "click to enlarge",
    "image",
    "photo",
    "untitled",
    "logo.png",
    "stock photo",
    "thumbnail",
    "picture",
    "no description available",
    "default.jpg",
)


@dataclass(frozen=True)
class Pair:
    """One row of the list."""

    drawing: Drawing  # what the image shows
    kind: str  # clean, swapped, boilerplate, near_duplicate, exact_copy or one of DEAD_KINDS
    url: str
    caption: str
    picture: Picture
    of: str | None = None  # URL of the pair that this one copies


def plan(drawings: Sequence[Drawing], seed: int, base_url: str) -> list[Pair]:
    """All pairs of a pool over these drawings, ordered by hash."""
    total = round(len(drawings) / (1 - NEAR_DUPLICATES - EXACT_COPIES))
    near, copies = round(NEAR_DUPLICATES * total), round(EXACT_COPIES * total)
    swapped, empty, dead = (round(share * total) for share in (SWAPPED, BOILERPLATE, DEAD))
    kinds = ["swapped"] * swapped + ["boilerplate"] * empty
    kinds += [DEAD_KINDS[i % len(DEAD_KINDS)] for i in range(dead)]
    kinds += ["clean"] * (len(drawings) - len(kinds))
    order = sorted(drawings, key=lambda d: draw(seed, f"{d.code}/kind"))
    pairs = [_pair(d, kind, seed, base_url) for d, kind in zip(order, kinds, strict=True)]
    good = [p for p in pairs if p.kind == "clean"]
    pairs = [
        *(p for p in pairs if p.kind not in ("swapped", "boilerplate")),
        *_swap([p for p in pairs if p.kind == "swapped"], seed),
        *(_boilerplate(p, seed) for p in pairs if p.kind == "boilerplate"),
        *(_near_duplicate(p, seed, base_url) for p in good[:near]),
        *(_exact_copy(p, seed, base_url) for p in good[near : near + copies]),
    ]
    return sorted(pairs, key=lambda p: draw(seed, f"{p.drawing.code}/{p.kind}/row"))


def _pair(drawing: Drawing, kind: str, seed: int, base_url: str) -> Pair:
    picture = original(drawing.code, seed)
    url = _url(drawing, "", picture.format, seed, base_url)
    return Pair(drawing, kind, url, caption(drawing, seed), picture)


def _url(drawing: Drawing, copy: str, extension: str, seed: int, base_url: str) -> str:
    """Such as BASE/img/1f44d-1f3fd/photo_4711.jpg; no two of a pool are equal."""
    number = int(draw(seed, f"{drawing.code}/{copy}/number") * 10_000)
    stem = ("photo", "img", "pic", "view")[int(draw(seed, f"{drawing.code}/{copy}/stem") * 4)]
    ending = "jpg" if extension == "jpeg" else extension
    return f"{base_url}/img/{drawing.code.lower()}{copy}/{stem}_{number}.{ending}"


def _swap(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Every pair gets the caption of one from another family.

    Families stand in hash order and captions move on by the size of the largest one.
    """
    families = by_family([p.drawing for p in pairs])
    step = max((len(members) for members in families.values()), default=0)
    if step * 2 > len(pairs):
        raise ValueError(
            f"{len(pairs)} captions to swap, {step} of one family: ask for more drawings"
        )
    ordered = sorted(
        pairs,
        key=lambda p: (draw(seed, f"{p.drawing.family}/swap"), p.drawing.family, p.drawing.code),
    )
    others = ordered[step:] + ordered[:step]
    return [replace(p, caption=o.caption) for p, o in zip(ordered, others, strict=True)]


def _boilerplate(pair: Pair, seed: int) -> Pair:
    template = EMPTY_CAPTIONS[int(draw(seed, f"{pair.drawing.code}/empty") * len(EMPTY_CAPTIONS))]
    return replace(
        pair, caption=template.format(n=int(draw(seed, f"{pair.drawing.code}/n") * 10_000))
    )


def _near_duplicate(pair: Pair, seed: int, base_url: str) -> Pair:
    picture = near_copy(pair.picture, seed)
    return Pair(
        pair.drawing,
        "near_duplicate",
        _url(pair.drawing, "-2", picture.format, seed, base_url),
        caption(
            pair.drawing, seed, variant=1 + int(draw(seed, f"{pair.drawing.code}/variant") * 3)
        ),
        picture,
        of=pair.url,
    )


def _exact_copy(pair: Pair, seed: int, base_url: str) -> Pair:
    variant = int(draw(seed, f"{pair.drawing.code}/variant") * 2)  # half keep their caption
    return replace(
        pair,
        kind="exact_copy",
        url=_url(pair.drawing, "-copy", pair.picture.format, seed, base_url),
        caption=caption(pair.drawing, seed, variant),
        of=pair.url,
    )
