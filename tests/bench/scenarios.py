"""What the download benches ask for: pages, hosts, and the list of URLs.

The mix of `mixed` (shares of all rows): 70 % are photos of 500 x 400 (about 25 to 65 kB) and 30 %
cannot be had:

    14.0  404            4.5  a name that does not resolve (each on three rows; *.invalid)
     3.5  403            3.0  a host that takes the request and never answers (each four rows)
     1.0  410            1.0  connection refused
     1.0  503            1.0  connection reset before the answer
     1.0  an HTML page   (in place of the image)

The proportions are those of a LAION-400M shard whose statuses were published (10 000 rows: 594
times 404, 141 times 403, 139 names not known, 83 undecodable, tens of refusals, 5xx and TLS
failures, up to 294 others, time-outs among them; github.com/rom1504/img2dataset/issues/277),
scaled from its 15 % to 30 % as lists are found now (68 % success: issue 400 there). Undecodable and
TLS failures became other rows, as loopback has no certificates to be wrong.

Live hosts: 300 addresses, of which a few have most rows (host k has a share of about 1/(k+5)). One
in seven is slow: each of its answers takes a time of its own between 0.5 and 3 s. Any other's take
20 to 200 ms, as over the network. robots.txt takes as long as all else of its host.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.pictures import CACHE, drawings, photos, small_photos
from tests.bench.web_server import Host, Page

MANY = tuple(Host(f"127.0.1.{i}") for i in range(1, 33))  # hosts that answer at once
AREA = 170_000_000  # pixels that both may decode
SHARES = {
    "404": 0.14,
    "unknown": 0.045,
    "403": 0.035,
    "silent": 0.03,
    "410": 0.01,
    "refused": 0.01,
    "503": 0.01,
    "reset": 0.01,
    "html": 0.01,
}
HTML = b"<!doctype html><title>moved</title><p>This page has moved.</p>"
LIVE = 300


@dataclass(frozen=True)
class Row:
    """A row of the list. kind: `image`, or one of SHARES."""

    kind: str
    address: str
    path: str


@dataclass(frozen=True)
class Scenario:
    """A list with the web that it names, and what each downloader is told beside."""

    name: str
    about: str
    rows: Sequence[Row]
    pages: Mapping[str, Page]
    hosts: Sequence[Host]
    faster: float  # the goal, in times img2dataset's rows/s
    memory_mb: float | None = None  # of ours, Ray's daemons aside
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    limited: bool = False  # img2dataset's processes may each map so much and no more


def photographed(rows: int, cache: Path = CACHE) -> Scenario:
    """(a) Large photos that decode well at reduced scale, on 32 hosts that answer at once."""
    listed, pages = _pictures(photos(cache, rows), "image/jpeg")
    about = f"{rows} JPEG photos of 2 000 x 1 500"
    return Scenario("a", about, listed, pages, MANY, faster=2)


def drawn(rows: int, cache: Path = CACHE) -> Scenario:
    """(b) openclipart's RGBA drawings with its bombs. img2dataset refuses after decoding."""
    listed, pages = _pictures(drawings(cache, rows), "image/png")
    return Scenario(
        "b",
        f"{rows} RGBA PNG drawings of openclipart, at most 170 Mpx",
        listed,
        pages,
        MANY,
        faster=3,
        memory_mb=1500,
        ours={"max_pixels": AREA},
        theirs={"max_image_area": AREA},
        limited=True,
    )


def mixed(rows: int, cache: Path = CACHE, seed: int = 0) -> Scenario:
    """(c) Small photos among dead URLs, slow and silent hosts: see the module's docstring."""
    draw = random.Random(seed)
    pages = _mixed_pages(small_photos(cache, 200, 500, 400, 85), rows)
    live = [Host(f"127.0.{2 + i // 250}.{1 + i % 250}", _wait_s(draw, i)) for i in range(LIVE)]
    silent = [Host(f"127.0.4.{i + 1}", silent=True) for i in range(_count("silent", rows) // 4 + 1)]
    listed = _mixed_rows(draw, rows, live, silent)
    about = f"{rows} small photos with 30 % dead URLs and slow hosts"
    return Scenario("c", about, listed, pages, [*live, *silent], faster=3)


def _pictures(paths: Sequence[Path], kind: str) -> tuple[list[Row], dict[str, Page]]:
    pages = {f"/{i:06d}{p.suffix}": Page(p, content_type=kind) for i, p in enumerate(paths)}
    rows = [Row("image", MANY[i % len(MANY)].address, path) for i, path in enumerate(pages)]
    return rows, pages


def _count(kind: str, rows: int) -> int:
    return max(1, round(SHARES[kind] * rows))


def _wait_s(draw: random.Random, number: int) -> float:
    return draw.uniform(0.5, 3) if number % 7 == 3 else draw.uniform(0.02, 0.2)


def _mixed_pages(paths: Sequence[Path], rows: int) -> dict[str, Page]:
    """Each row has a path of its own; bodies are shared."""
    pages = {f"/image/{i}.jpg": Page(paths[i % len(paths)]) for i in range(rows)}
    for i in range(rows):
        for status in (403, 404, 410, 503):
            pages[f"/{status}/{i}.jpg"] = Page(status=status, content_type="text/html")
        pages[f"/reset/{i}.jpg"] = Page(reset=True)
        pages[f"/html/{i}.jpg"] = Page(HTML, content_type="text/html")
    return pages


def _mixed_rows(
    draw: random.Random, rows: int, live: Sequence[Host], silent: Sequence[Host]
) -> list[Row]:
    kinds = [kind for kind in SHARES for _ in range(_count(kind, rows))]
    kinds += ["image"] * (rows - len(kinds))
    weights = [1 / (k + 5) for k in range(len(live))]
    found = []
    for i, kind in enumerate(kinds):
        nth = kinds.index(kind)
        match kind:
            case "unknown":
                address = f"gone-{(i - nth) // 3}.invalid"
            case "silent":
                address = silent[(i - nth) // 4].address
            case "refused":
                address = f"127.0.5.{1 + (i - nth) % 200}"
            case _:
                address = draw.choices(live, weights)[0].address
        found.append(Row(kind, address, f"/{kind}/{i}.jpg"))
    draw.shuffle(found)
    return found
