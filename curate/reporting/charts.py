"""Charts as SVG text: the funnel's bars, histograms, shares before and after. Colours are CSS
variables with fallbacks.

Every string goes through markupsafe, so that a name from the data is text and never markup.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup

from curate.funnel import FunnelRow
from curate.reporting.balance import Bars, Share
from curate.reporting.histograms import Histogram, Threshold
from curate.reporting.text import number

KEPT, DROPPED, FAILED = "var(--kept, #2f6db3)", "var(--dropped, #d98a3d)", "var(--failed, #9a9a94)"
INK, MUTED, LINE, POOL = (
    "var(--ink, #1d1d1b)",
    "var(--muted, #6b6b66)",
    "var(--line, #dededa)",
    "var(--pool, #c9cdd3)",
)
CUT = "var(--cut, #a85a12)"
FONT = "font-family:system-ui,sans-serif;font-variant-numeric:tabular-nums"

_TEXT = Markup(
    '<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
    'style="font-size:{size}px;font-weight:{weight};fill:{fill};{more}">{text}</text>'
)
_RECT = Markup(
    '<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" '
    'style="fill:{fill};opacity:{opacity}">{title}</rect>'
)
_SVG = Markup(
    '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{label}" '
    'style="width:100%;height:auto;display:block;{font}">{body}</svg>'
)
_RULE = Markup(
    '<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" '
    'style="stroke:{stroke};stroke-width:{width}"/>'
)
_PATH = Markup(
    '<polyline points="{points}" style="fill:none;stroke:{stroke};stroke-width:{width};'
    'stroke-linejoin:round"/>'
)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: float = 11,
    weight: int = 400,
    fill: str = INK,
    more: str = "",
) -> Markup:
    return _TEXT.format(
        x=x, y=y, text=text, anchor=anchor, size=size, weight=weight, fill=fill, more=more
    )


def _rect(
    x: float, y: float, w: float, h: float, fill: str, *, title: str = "", opacity: float = 1
) -> Markup:
    tip = Markup("<title>{}</title>").format(title) if title else ""
    return _RECT.format(x=x, y=y, w=w, h=h, fill=fill, title=tip, opacity=opacity)


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    stroke: str = LINE,
    width: float = 1,
) -> Markup:
    return _RULE.format(x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, width=width)


def _svg(w: float, h: float, label: str, body: Sequence[Markup]) -> Markup:
    return _SVG.format(w=w, h=h, label=label, font=FONT, body=Markup("").join(body))


# ------------------------------------------------------------------------------------ funnel

_BAR_X, _BAR_W, _ROW_H, _BAR_H = 92.0, 740.0, 34.0, 20.0


def funnel_svg(rows: Sequence[FunnelRow]) -> Markup:
    """A bar per stage, as long as what came in: kept, dropped, failed. Width 1000 units."""
    total = max((row.input for row in rows), default=0)
    body = [mark for at, row in enumerate(rows) for mark in _bar(row, at * _ROW_H + 4, total)]
    return _svg(1000, len(rows) * _ROW_H + 4, "pairs kept, dropped and failed per stage", body)


def _bar(row: FunnelRow, y: float, total: int) -> list[Markup]:
    marks = [
        _text(0, y + 14, row.stage, size=13, weight=600),
        _rect(_BAR_X, y, _BAR_W, _BAR_H, LINE, opacity=0.45),
    ]
    x = _BAR_X
    for count, name, fill in (
        (row.kept, "kept", KEPT),
        (row.dropped_count, "dropped", DROPPED),
        (row.failed_count, "failed", FAILED),
    ):
        width = _BAR_W * count / total if total else 0
        if count:
            marks.append(
                _rect(x, y, max(width, 1.5), _BAR_H, fill, title=f"{row.stage}: {count:,} {name}")
            )
        x += width
    share = f"{100 * row.kept / total:.1f} %" if total else ""
    marks.append(_text(915, y + 14, f"{row.kept:,}", anchor="end", size=13, weight=600))
    marks.append(_text(1000, y + 14, share, anchor="end", size=13, fill=MUTED))
    return marks


# ------------------------------------------------------------------------------------ histograms

_W, _H, _LEFT, _RIGHT, _BASE = 330.0, 168.0, 6.0, 324.0, 146.0
_LABEL_H = 14.0
_HALO = "paint-order:stroke;stroke:var(--card, #fff);stroke-width:4px;stroke-linejoin:round"


def histogram_svg(h: Histogram) -> Markup:
    """All pairs, in front the kept ones, and a line where each rule cuts. Width 330 units."""
    top = 6.0 + _LABEL_H * len(h.thresholds)
    scale = (_BASE - top) / (max(h.everyone) or 1)
    step = (_RIGHT - _LEFT) / len(h.everyone)
    body = [_shade(h, t, top) for t in h.thresholds]
    for at, (everyone, kept) in enumerate(zip(h.everyone, h.kept, strict=True)):
        x, title = _LEFT + at * step, f"{_bin_name(h, at)}: {everyone:,} pairs, {kept:,} kept"
        for count, fill in ((everyone, POOL), (kept, KEPT)):
            if count:
                height = max(count * scale, 1.0)
                body.append(
                    _rect(x + step * 0.06, _BASE - height, step * 0.88, height, fill, title=title)
                )
    body.append(_line(_LEFT, _BASE, _RIGHT, _BASE))
    for tick in ticks(h.lo, h.hi, h.whole_numbers):
        body += _tick(h, tick)
    outer_first = sorted(h.thresholds, key=lambda t: -abs(_edge(h, t) - (_LEFT + _RIGHT) / 2))
    body += [mark for at, t in enumerate(outer_first) for mark in _cut(h, t, 13 + _LABEL_H * at)]
    return _svg(_W, _H, f"distribution of {h.column}", body)


def _bin_name(h: Histogram, at: int) -> str:
    width = (h.hi - h.lo) / len(h.everyone)
    low, high = h.lo + at * width, h.lo + (at + 1) * width
    if not h.whole_numbers:
        return f"{number(low)} to {number(high)}"
    first, last = math.ceil(low), math.floor(high)
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _x(h: Histogram, value: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (value - h.lo) / (h.hi - h.lo)


def _edge(h: Histogram, t: Threshold) -> float:
    """Between two bars where the values are whole numbers: the value itself is kept."""
    half = 0.5 if h.whole_numbers else 0.0
    return _x(h, t.value - half if t.drops == "below" else t.value + half)


def _shade(h: Histogram, t: Threshold, top: float) -> Markup:
    x = _edge(h, t)
    begin, end = (_LEFT, x) if t.drops == "below" else (x, _RIGHT)
    return _rect(begin, top, max(end - begin, 0), _BASE - top, DROPPED, opacity=0.12)


def _cut(h: Histogram, t: Threshold, y: float) -> list[Markup]:
    x = _edge(h, t)
    left = x > (_LEFT + _RIGHT) / 2
    label = _text(
        x - 5 if left else x + 5,
        y,
        t.label,
        anchor="end" if left else "start",
        size=10.5,
        weight=600,
        fill=CUT,
        more=_HALO,
    )
    return [_line(x, y - 9, x, _BASE, stroke=CUT, width=1.25), label]


def _tick(h: Histogram, value: float) -> list[Markup]:
    x = _x(h, value)
    anchor = "start" if x < _LEFT + 12 else "end" if x > _RIGHT - 12 else "middle"
    return [
        _line(x, _BASE, x, _BASE + 4, stroke=MUTED),
        _text(x, _BASE + 16, number(value), anchor=anchor, size=10.5, fill=MUTED),
    ]


def ticks(lo: float, hi: float, whole: bool, about: int = 6) -> list[float]:
    """Round numbers from lo to hi, about so many, at steps of 1, 2 or 5 times a power of ten."""
    raw = (hi - lo) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


# ------------------------------------------------------------------------------------ balance

_SHARE_X, _SHARE_W, _SHARE_H, _HEADING_H = 144.0, 88.0, 17.0, 24.0
_LABEL = 20  # characters beside a bar; the tip has all


def compared_svg(drawing: Bars | Histogram) -> Markup:
    """Before and after: the pool's shares filled in grey, the subset's in blue. Width 330 units."""
    return shares_svg(drawing) if isinstance(drawing, Bars) else outline_svg(drawing)


def shares_svg(bars: Bars) -> Markup:
    """Two bars and two figures a label, in groups with a heading and a scale of their own."""
    body, y = [], 0.0
    for heading, shares in bars.groups:
        longest = max(max(s.before, s.after) for s in shares)
        if heading:
            y += _HEADING_H
            body.append(_text(_LEFT, y - 8, heading, size=10.5, fill=MUTED))
        for share in shares:
            body += _share(share, y, _SHARE_W / longest)
            y += _SHARE_H
    return _svg(_W, y + 2, f"{bars.label} before and after", body)


def _share(share: Share, y: float, scale: float) -> list[Markup]:
    figures = f"{_percent(share.before)} → {_percent(share.after)} %"
    label = share.label
    marks = [_text(_LEFT, y + 12, _short(label), size=10.5)]
    for at, (value, fill) in enumerate(((share.before, POOL), (share.after, KEPT))):
        if value:
            width, title = max(value * scale, 1.0), f"{label}: {figures}"
            marks.append(_rect(_SHARE_X, y + 2 + 6.5 * at, width, 6, fill, title=title))
    return [*marks, _text(_RIGHT, y + 12, figures, anchor="end", size=10.5, fill=MUTED)]


def _short(label: str) -> str:
    """Begin and end of a long label: a host's end says whose it is. Wide letters take two."""
    wide = any(unicodedata.east_asian_width(c) in "WF" for c in label)
    half = _LABEL // 4 if wide else _LABEL // 2
    return label if len(label) <= 2 * half else f"{label[: half - 1]}…{label[-half:]}"


def _percent(share: float) -> str:
    return "<0.1" if 0 < share < 0.001 else f"{100 * share:.1f}"  # noqa: PLR2004 - one decimal


def outline_svg(h: Histogram) -> Markup:
    """Shares per bar: before filled, after as an outline in front."""
    before, after = ([n / (sum(counts) or 1) for n in counts] for counts in (h.everyone, h.kept))
    top, step = 10.0, (_RIGHT - _LEFT) / len(before)
    scale = (_BASE - top) / (max(*before, *after) or 1)
    body, outline = [], [(_LEFT, _BASE)]
    for at, (one, other) in enumerate(zip(before, after, strict=True)):
        x = _LEFT + at * step
        tip = f"{_bin_name(h, at)}: {_percent(one)} % before, {_percent(other)} % after"
        body.append(_rect(x, _BASE - one * scale, step, one * scale, POOL))
        body.append(_rect(x, top, step, _BASE - top, KEPT, title=tip, opacity=0))
        outline += [(x, _BASE - other * scale), (x + step, _BASE - other * scale)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*outline, (_RIGHT, _BASE)])
    body += [_PATH.format(points=points, stroke=KEPT, width=1.75)]
    body += [_line(_LEFT, _BASE, _RIGHT, _BASE)]
    body += [mark for tick in ticks(h.lo, h.hi, h.whole_numbers) for mark in _tick(h, tick)]
    return _svg(_W, _H, f"{h.column} before and after", body)
