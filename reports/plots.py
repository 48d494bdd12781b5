"""Inline SVG pictures: values with intervals, paired differences against zero, and training curves.

Every picture is `WIDTH` units wide, so that it stays legible on a telephone and two fit beside each other on a desk.
Colours are classes: the page (or `standalone`) brings `style()`, which follows the reader's light or dark mode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from reports.text import MINUS, MISSING, Unit, finite, interval, line, number, slug

WIDTH = 420
Shape = Literal["circle", "ring", "diamond", "square", "triangle"]
SERIES_SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "diamond", "ring")

# After Okabe and Ito, darkened on paper and lightened on black until each keeps a contrast of 3 to 1.
LIGHT = {"paper": "#fffefb", "ink": "#1f1e1b", "muted": "#67645c", "rule": "#dedacf", "strong": "#8d897e"}
LIGHT |= {"c0": "#0067a5", "c1": "#c4500a", "c2": "#007d5c", "c3": "#a8457f", "c4": "#876a00", "c5": "#5f5f5f"}
DARK = {"paper": "#17181b", "ink": "#e8e5de", "muted": "#a5a198", "rule": "#34363b", "strong": "#75777d"}
DARK |= {"c0": "#62b5ec", "c1": "#f5924e", "c2": "#35bf96", "c3": "#dd93bd", "c4": "#d9b93f", "c5": "#b5b5b5"}
N_COLORS = 6

_RULES = """\
svg.plot text{{fill:{ink};font:13px/1 -apple-system,"Segoe UI","Helvetica Neue",Arial,"Liberation Sans",sans-serif;\
font-variant-numeric:tabular-nums}}
svg.plot text.title{{font-weight:600}}
svg.plot text.quiet{{fill:{muted};font-size:12px}}
svg.plot .grid{{stroke:{rule};stroke-width:1}}
svg.plot .axis{{stroke:{strong};stroke-width:1}}
svg.plot .zero{{stroke:{ink};stroke-width:1.25}}
svg.plot .dash{{stroke:{strong};stroke-width:1.25;stroke-dasharray:3 3}}
svg.plot .whisker{{stroke-width:2.25;stroke-linecap:round}}
svg.plot .curve{{fill:none;stroke-width:1.6;stroke-linejoin:round}}
svg.plot .dashed{{stroke-dasharray:5 3}}
svg.plot .dotted{{stroke-dasharray:1.5 3}}
"""


def style(colors: dict[str, str]) -> str:
    """The CSS rules of every picture in one set of colours."""
    rules = [_RULES.format(**colors)]
    for i in range(N_COLORS):
        rules.append(f"svg.plot .s{i}{{fill:{colors[f'c{i}']};stroke:{colors[f'c{i}']}}}\n")
        rules.append(f"svg.plot .curve.s{i}{{fill:none}}\n")
        rules.append(f"svg.plot .ring.s{i}{{fill:{colors['paper']};stroke-width:2}}\n")
    return "".join(rules)


def standalone(svg: str) -> str:
    """`svg` with its rules, a background and a margin: a file of its own."""
    light, dark = (f"{style(colors)}svg.plot .paper{{fill:{colors['paper']}}}\n" for colors in (LIGHT, DARK))
    rules = f"<style>{light}@media (prefers-color-scheme:dark){{\n{dark}}}\n</style>"
    head, rest = svg.split(">", 1)
    height, names = re.findall(r' height="(\d+)" role="img" aria-labelledby="([^"]*)"', head)[0]
    paper = '<rect class="paper" x="-12" y="-10" width="100%" height="100%"/>'
    outer = _head(names, -12, -10, WIDTH + 24, int(height) + 20)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{outer}{rules}{paper}{rest}\n'


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval, drawn in the row named `label`; several `series` share a row."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    series: int = 0
    shape: Shape = "circle"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a training plot: (step, value) in order. Values that are not finite leave a gap."""

    label: str
    points: tuple[tuple[float, float | None], ...]


def forest(
    name: str,
    title: str,
    description: str,
    dots: Sequence[Dot],
    unit: Unit = "percent",
    zero: bool = False,
    dashes: Sequence[tuple[float, str]] = (),
    legend: Sequence[str] = (),
) -> str:
    """Values with intervals, one row per label, in order of appearance.

    `zero` draws differences: signed, against a line at zero. `dashes` are further vertical lines (position, name).
    With a `legend` (one name per series) the rows hold a mark per series and no printed numbers.
    """
    labels = list(dict.fromkeys(dot.label for dot in dots))
    longest = max((len(line(label)) for label in labels), default=0)
    left = min(170.0, max(60.0, 7.4 * min(longest, 22) + 12))
    printed = ["" if legend else _printed(dot, unit, zero) for dot in dots]
    right = 14.0 if legend else 20 + 7.0 * max((len(text) for text in printed), default=0)
    n_series = max(1, len(legend))
    height_row = 27.0 if n_series == 1 else 13.0 * n_series + 10
    top = 58.0 if legend or dashes else 34.0
    bottom = top + height_row * len(labels)
    low, high = _domain(dots, [0.0] * zero + [at for at, _ in dashes], unit, zero)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    body = [_text(0, 14, title, "title"), *_marks(legend, dashes)]
    for tick in ticks(low, high, max(1, min(4, int((WIDTH - left - right) / 50)))):
        body.append(_line(x(tick), top, x(tick), bottom, "zero" if zero and tick == 0 else "grid"))
        body.append(_text(x(tick), bottom + 16, _tick(tick, unit, zero), "quiet", "middle"))
    body.append(_line(left, bottom, WIDTH - right, bottom, "axis"))
    body += [_line(x(at), top, x(at), bottom, "dash") for at, _ in dashes]
    for row, label in enumerate(labels):
        middle = top + height_row * (row + 0.5)
        if row and legend:
            body.append(_line(0, top + height_row * row, WIDTH - right, top + height_row * row, "grid"))
        body.append(_text(0, middle + 4.5, _short(label, left), full=label))
        for dot in (dot for dot in dots if dot.label == label):
            y = middle + 13 * (dot.series - (n_series - 1) / 2)
            value = finite(dot.value)
            if value is not None:
                body += _dot(dot, value, x, y)
            if value is None or not legend:
                at = left + 4 if legend else WIDTH - right + 12
                body.append(_text(at, y + 4.5, _printed(dot, unit, zero), "quiet" if legend else ""))
    return _svg(name, title, description, bottom + 24, body)


def curves(name: str, title: str, description: str, lines: Sequence[Curve], x_label: str = "step") -> str:
    """Training curves over one axis of steps. One curve prints its last value; several have a legend."""
    thin = [(curve.label, _thin(curve.points)) for curve in lines]
    xs = [step for _, points in thin for step, value in points if finite(value) is not None]
    ys = [y for _, points in thin for _, value in points if (y := finite(value)) is not None]
    legend = [curve.label for curve in lines] if len(lines) > 1 else []
    legend_rows = math.ceil(len(legend) / 3)
    left, right, top = 52.0, 12.0, 32.0 + 18 * legend_rows
    bottom = top + 150
    x_low, x_high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    y_low, y_high = _padded(min(ys), max(ys)) if ys else (0.0, 1.0)
    x_high += x_high == x_low

    def at(step: float, value: float) -> str:
        x = left + (step - x_low) / (x_high - x_low) * (WIDTH - left - right)
        return f"{x:.1f},{bottom - (value - y_low) / (y_high - y_low) * (bottom - top):.1f}"

    body = [_text(0, 14, title, "title")]
    if len(lines) == 1 and ys:
        body.append(_text(WIDTH - right, 14, f"last {ys[-1]:.4g}".replace("-", MINUS), "quiet", "end"))
    for i, label in enumerate(legend):
        x, y = (i % 3) * WIDTH / 3, 34.0 + 18 * (i // 3)
        body.append(_line(x, y - 4, x + 18, y - 4, _pen(i)))
        body.append(_text(x + 24, y, _short(label, WIDTH / 3 - 24), "quiet", full=label))
    for tick in ticks(y_low, y_high, 4):
        y = bottom - (tick - y_low) / (y_high - y_low) * (bottom - top)
        body.append(_line(left, y, WIDTH - right, y, "grid"))
        body.append(_text(left - 8, y + 4, f"{tick:.4g}".replace("-", MINUS), "quiet", "end"))
    body.append(_line(left, bottom, WIDTH - right, bottom, "axis"))
    for tick in ticks(x_low, x_high):
        x = left + (tick - x_low) / (x_high - x_low) * (WIDTH - left - right)
        body.append(_text(x, bottom + 16, f"{tick:,.6g}", "quiet", "middle"))
    body.append(_text(left - 8, bottom + 16, x_label, "quiet", "end"))
    for i, (_, points) in enumerate(thin):
        for piece in _pieces(points):
            path = " ".join(at(step, value) for step, value in piece)
            body.append(f'<polyline class="{_pen(i)}" points="{path}"/>')
    return _svg(name, title, description, bottom + 24, body)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round positions within [low, high], roughly `about` of them."""
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 0.1
    return low - pad, high + pad


def _domain(dots: Sequence[Dot], also: Iterable[float], unit: Unit, zero: bool) -> tuple[float, float]:
    ends = [number for dot in dots for end in (dot.value, dot.low, dot.high) if (number := finite(end)) is not None]
    ends += also
    if not ends:
        return (0.0, 1.0)
    low, high = _padded(min(ends), max(ends))
    if unit == "percent" and not zero:
        low, high = max(low, 0.0 if min(ends) >= 0 else low), min(high, 1.0 if max(ends) <= 1 else high)
    return (low, high) if high - low > 1e-9 else (low - 0.01, high + 0.01)


def _thin(points: Sequence[tuple[float, float | None]], buckets: int = 150) -> list[tuple[float, float | None]]:
    """At most four points per bucket, the extremes among them: a long run draws as it would in full."""
    if len(points) <= 4 * buckets:
        return list(points)
    kept = {0, len(points) - 1}
    size = len(points) / buckets
    for bucket in range(buckets):
        span = range(int(bucket * size), int((bucket + 1) * size))
        known = [(y, i) for i in span if (y := finite(points[i][1])) is not None]
        kept.update((min(known)[1], max(known)[1]) if known else ())
        kept.update(next(([i] for i in span if finite(points[i][1]) is None), []))
    return [points[i] for i in sorted(kept)]


def _pieces(points: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in points:
        known = finite(value)
        if known is None:
            pieces.append([])
        else:
            pieces[-1].append((step, known))
    return [piece * 2 if len(piece) == 1 else piece for piece in pieces if piece]


def _pen(i: int) -> str:
    return f"curve s{i % N_COLORS}" + ("", " dashed", " dotted")[i // N_COLORS % 3]


def _marks(legend: Sequence[str], dashes: Sequence[tuple[float, str]]) -> list[str]:
    body = []
    x = 0.0
    for i, name in enumerate(legend):
        body += [_shape(SERIES_SHAPES[i % 5], x + 6, 34, i), _text(x + 17, 38.5, name, "quiet")]
        x += 32 + 6.2 * len(name)
    for _, name in dashes:
        body += [_line(x, 34, x + 16, 34, "dash"), _text(x + 22, 38.5, name, "quiet")]
        x += 44 + 7 * len(name)
    return body


def _printed(dot: Dot, unit: Unit, signed: bool) -> str:
    if finite(dot.value) is None:
        return MISSING
    return f"{number(dot.value, unit, signed)} {interval(dot.low, dot.high, unit, signed)}"


def _dot(dot: Dot, value: float, x: Callable[[float], float], y: float) -> list[str]:
    low, high, color = finite(dot.low), finite(dot.high), dot.series % N_COLORS
    whisker = [_line(x(low), y, x(high), y, f"whisker s{color}")] if low is not None and high is not None else []
    return [*whisker, _shape(dot.shape, x(value), y, color)]


def _shape(shape: Shape, x: float, y: float, color: int) -> str:
    if shape in ("circle", "ring"):
        return f'<circle class="{"ring " * (shape == "ring")}s{color}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="s{color}" points="{points}"/>'


def _short(label: str, width: float) -> str:
    """`label` on one line; one that would leave `width` loses its middle, as seeds and variants end a name."""
    text = line(label)
    room = max(3, int((width - 10) / 7.2))
    return text if len(text) <= room else f"{text[: room // 2]}…{text[-(room - room // 2 - 1) :]}"


def _tick(value: float, unit: Unit, signed: bool) -> str:
    shown = 100 * value if unit == "percent" else value
    sign = MINUS if shown < 0 else "+" if signed and shown > 0 else ""
    return f"{sign}{abs(shown):.6g}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start", full: str = "") -> str:
    title = f"<title>{escape(line(full))}</title>" if full and line(full) != text else ""
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(line(text))}{title}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(name: str, title: str, description: str, height: float, body: Iterable[str]) -> str:
    at = slug(name)
    words = f'<title id="{at}-t">{escape(line(title))}</title><desc id="{at}-d">{escape(line(description))}</desc>'
    return _head(f"{at}-t {at}-d", 0, 0, WIDTH, round(height)) + words + "".join(body) + "</svg>"


def _head(names: str, x: int, y: int, width: int, height: int) -> str:
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="{x} {y} {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-labelledby="{names}">'
    )
