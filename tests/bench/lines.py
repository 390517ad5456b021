"""Lines over one axis as SVG text, in the report's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from curate.reporting.charts import CUT, DROPPED, FAILED, FONT, INK, KEPT, LINE, MUTED, ticks

WIDTH, HEIGHT = 960.0, 520.0
LEFT, RIGHT, TOP, BASE = 56.0, 780.0, 14.0, 470.0
COLOURS = (INK, KEPT, "#6aa84f", DROPPED, FAILED, CUT, "#8e6bb0", "#c27ba0")
APART = 15.0  # between two names at the lines' ends

_TEXT = Markup(
    '<text x="{:.1f}" y="{:.1f}" text-anchor="{}" style="font-size:12px;fill:{}">{}</text>'
)
_RULE = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" style="stroke:{}"/>')
_PATH = Markup('<polyline points="{}" style="fill:none;stroke:{};stroke-width:1.5"/>')
_SVG = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" style="{}">{}</svg>'
)


@dataclass(frozen=True)
class Line:
    """A name and its points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def lines_svg(lines: Sequence[Line], x_label: str, y_label: str, mark: float) -> str:
    """All lines from zero on, each with its name at its end; a dashed upright line at `mark`."""
    widest = max((x for line in lines for x, _ in line.points), default=1.0) or 1.0
    highest = max((y for line in lines for _, y in line.points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * x / widest, BASE - (BASE - TOP) * y / highest

    body = []
    for tick in ticks(0, highest, whole=False):
        y = place(0, tick)[1]
        body += [_RULE.format(LEFT, y, RIGHT, y, LINE)]
        body += [_TEXT.format(LEFT - 6, y + 4, "end", MUTED, f"{tick:,.0f}")]
    for tick in ticks(0, widest, whole=False):
        x = place(tick, 0)[0]
        body += [_RULE.format(x, BASE, x, BASE + 4, MUTED)]
        body += [_TEXT.format(x, BASE + 18, "middle", MUTED, f"{tick:g}")]
    upright = place(mark, 0)[0]
    body += [_RULE.format(upright, TOP, upright, BASE, f"{CUT};stroke-dasharray:4 4")]
    body += [_TEXT.format((LEFT + RIGHT) / 2, BASE + 38, "middle", MUTED, x_label)]
    body += [_TEXT.format(LEFT + 6, TOP + 4, "start", MUTED, y_label)]
    ends = _spread([place(*line.points[-1])[1] for line in lines])
    for at, line in enumerate(lines):
        colour = COLOURS[at % len(COLOURS)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in line.points))
        body += [_PATH.format(points, colour)]
        body += [_TEXT.format(RIGHT + 8, ends[at] + 4, "start", colour, line.name)]
    return str(_SVG.format(int(WIDTH), int(HEIGHT), FONT, Markup("").join(body)))


def _spread(heights: Sequence[float]) -> list[float]:
    """The same heights, moved up where two would be nearer than APART; the order stays."""
    placed, lowest = [0.0] * len(heights), math.inf
    for at in sorted(range(len(heights)), key=lambda i: -heights[i]):
        placed[at] = lowest = min(heights[at], lowest - APART)
    return placed
