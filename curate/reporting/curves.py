"""A captioner's training as SVG files: its curves, and what it says of held-out images.

Every string goes through markupsafe, so that a caption is text and never markup.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from curate.reporting.charts import FONT, ticks
from curate.reporting.text import number

Row = Mapping[str, Any]
PANELS = {
    "nats per word": ("train", "validation", "mean_image", "other_image", "unigram"),
    "perplexity of the codebook": ("perplexity", "validation_perplexity"),
    "share of codes in use": ("codes_in_use", "validation_codes_in_use"),
}
COLOURS = ("#2f6db3", "#d98a3d", "#6b9a4d", "#a0569a", "#9a9a94")
INK, MUTED, LINE = "#1d1d1b", "#6b6b66", "#dededa"  # a file of its own has no page's style
W, H, LEFT, TOP, BASE = 330.0, 210.0, 44.0, 30.0, 184.0
TILE, ROW_H = 64, 76  # of a shown image and its captions
MAX_TEXT = 90  # characters of a caption that is shown

_SVG = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:.0f} {h:.0f}" style="{font}">'
    '<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
)
_TEXT = Markup('<text x="{x:.1f}" y="{y:.1f}" style="font-size:{size}px;fill:{fill}">{text}</text>')
_PATH = Markup('<polyline points="{points}" style="fill:none;stroke:{stroke};stroke-width:1.5"/>')
_IMAGE = Markup('<image x="6" y="{y}" width="{side}" height="{side}" href="{href}"/>')


def curves_svg(rows: Sequence[Row]) -> Markup:
    """A panel each for losses, perplexity and codes in use, over steps. rows: lines of a log."""
    panels = [_panel(rows, at * W, *panel) for at, panel in enumerate(PANELS.items())]
    return _SVG.format(w=W * len(panels), h=H, font=FONT, body=Markup("").join(panels))


def _panel(rows: Sequence[Row], x: float, title: str, names: Sequence[str]) -> Markup:
    known = [n for n in names if any(_finite(row.get(n)) for row in rows)]
    last = max([1, *(row["step"] for row in rows)])
    values = [row[n] for row in rows for n in known if _finite(row.get(n))] or [1.0]
    lo, hi = min(0.0, *values), max(1e-9, *values)
    across = (W - LEFT - 12) / last

    def place(step: float, value: float) -> tuple[float, float]:
        return x + LEFT + step * across, BASE - (BASE - TOP) * (value - lo) / (hi - lo)

    marks = [_text(x + 4, 13, title, fill=INK, size=12)]
    for tick in ticks(lo, hi, whole=False, about=4):
        y = place(0, tick)[1]
        marks += [_path([(x + LEFT, y), (x + W - 12, y)], LINE), _text(x + 4, y + 3, number(tick))]
    marks += [_text(place(t, lo)[0], BASE + 14, number(t)) for t in ticks(0, last, True, 4)]
    for at, name in enumerate(known):
        marks.append(
            _path([place(r["step"], r[name]) for r in rows if _finite(r.get(name))], COLOURS[at])
        )
        marks.append(_text(x + LEFT + 4, BASE - 6 - 12 * (len(known) - 1 - at), name, COLOURS[at]))
    return Markup("").join(marks)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _text(x: float, y: float, text: str, fill: str = MUTED, size: float = 10.5) -> Markup:
    return _TEXT.format(x=x, y=y, text=text, fill=fill, size=size)


def _path(points: Sequence[tuple[float, float]], stroke: str) -> Markup:
    return _PATH.format(points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), stroke=stroke)


def samples_svg(
    images: np.ndarray[Any, Any], captions: Sequence[str], generated: Sequence[str]
) -> Markup:
    """Images uint8 (n, side, side, 3) under each other, with the caption that each came with and
    the one that was generated.
    """
    marks = []
    for at, (image, came, said) in enumerate(zip(images, captions, generated, strict=True)):
        y = at * ROW_H + 6
        marks.append(_IMAGE.format(y=y, side=TILE, href=_data_url(image)))
        marks.append(_text(TILE + 18, y + 26, _printable(came)))
        marks.append(_text(TILE + 18, y + 46, _printable(said), fill=INK, size=12))
    return _SVG.format(w=720, h=ROW_H * len(images) + 6, font=FONT, body=Markup("").join(marks))


def _data_url(image: np.ndarray[Any, Any]) -> str:
    import cv2

    encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(encoded).decode()


def _printable(text: str) -> str:
    """What XML can hold: control characters are no part of it, and no caption needs them."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT])
