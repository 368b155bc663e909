"""Small charts as inline SVG text: no scripts, no fonts, no colours of their own.

Colours come from the page's style sheet through classes (``m0`` the reference, ``m1`` … between, ``mc`` the
candidate, ``grid``, ``axis``, ``tick``), so dark mode and print need nothing here. Shapes differ as well as
colours. Each chart carries ``role="img"`` and a title that says in words what it shows. Every text is escaped;
numbers that are not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

POINTS = 240  # a curve is averaged down to about this many points


@dataclass(frozen=True)
class Dot:
    """A value in 0..1 with optional bounds, drawn as dot and whisker."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one line, and the x of a checkpoint to mark."""

    label: str
    points: Sequence[tuple[float, float]]
    marked: float | None = None


def dots(rows: Sequence[Dot], marks: Sequence[Dot] = ()) -> str:
    """Values on a 0–1 axis: a line per model (first = reference, last = candidate), ``marks`` as upright ticks."""
    width, step, left, top = 260, 16, 10, 8
    bottom = top + step * max(len(rows), 1)
    scale = width - 2 * left
    quarters = [left + scale * at for at in (0, 0.25, 0.5, 0.75, 1)]
    parts = [_line(x, top - 4, x, bottom, "grid") for x in quarters]
    for number, mark in enumerate(marks):
        if mark.value is not None:
            x = left + scale * _inside(mark.value)
            parts.append(
                f'<path class="mark k{number}" d="M{x:.1f} {top - 5}V{bottom}"><title>{escape(mark.label)} '
                f"{100 * mark.value:.0f} %</title></path>"
            )
    for number, row in enumerate(rows):
        y = top + step * number + step / 2
        if row.value is not None:
            name = "mc" if number == len(rows) - 1 and number else f"m{number}"
            parts.append(_whisker(row, left, scale, y))
            x = left + scale * _inside(row.value)
            parts.append(f'<g class="dot {name}">{_shape(number, len(rows), x, y)}</g>')
    for at, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x = left + scale * at + (-3 if at == 0 else 3 if at == 1 else 0)
        parts.append(_text(x, bottom + 12, f"{100 * at:.0f} %", anchor))
    return _svg(width, bottom + 16, _say([*rows, *marks]), parts, "dots")


def curves(series: Sequence[Curve], *, title: str, unit: str, height: int = 190) -> str:
    """Lines over optimizer steps; the chosen checkpoint of each is marked with a vertical line."""
    width, left, right, top, bottom = 520, 52, 14, 12, 30
    thinned = [Curve(line.label, _thin(_finite(line.points)), line.marked) for line in series]
    every = [point for line in thinned for point in line.points]
    if not every:
        return ""
    ticks = nice_ticks(min(0.0, *(y for _, y in every)), max(y for _, y in every))
    x_high = max(1.0, *(x for x, _ in every))
    y_low, y_high = ticks[0], ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * x / x_high,
            height - bottom - (height - top - bottom) * (y - y_low) / (y_high - y_low),
        )

    parts = []
    for tick in ticks:
        _, y = at(0, tick)
        parts += [_line(left, y, width - right, y, "grid"), _text(left - 6, y + 4, f"{tick:g}", "end")]
    for tick in nice_ticks(0, x_high, 5):
        if tick <= x_high:
            parts.append(_text(at(tick, y_low)[0], height - bottom + 16, f"{tick:g}", "middle"))
    parts.append(_text(width - right, height - 2, unit, "end"))
    for number, line in enumerate(thinned):
        if line.marked is not None and math.isfinite(line.marked):
            x = at(min(line.marked, x_high), y_low)[0]
            parts.append(_line(x, top, x, height - bottom, "chosen"))
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in line.points))
        parts.append(f'<path class="line l{number}" d="M{path}"/>')
    return _svg(width, height, f"{title}: {_trend(thinned)}", parts, "curve")


def bar(share: float, label: str) -> str:
    """A share of 1 as a horizontal bar."""
    filled = 100 * _inside(share)
    parts = [
        '<rect class="track" width="100" height="8" rx="2"/>',
        f'<rect class="fill" width="{filled:.1f}" height="8" rx="2"/>',
    ]
    return _svg(100, 8, label, parts, "bar")


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round steps (1, 2, 2.5 or 5 times a power of ten) that cover ``low``..``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]


def _whisker(row: Dot, left: float, scale: float, y: float) -> str:
    if row.low is None or row.high is None:
        return ""
    start, end = left + scale * _inside(row.low), left + scale * _inside(row.high)
    ends = "".join(f"M{x:.1f} {y - 3:.1f}v6" for x in (start, end))
    return f'<path class="whisker" d="M{start:.1f} {y:.1f}H{end:.1f}{ends}"/>'


def _shape(number: int, count: int, x: float, y: float) -> str:
    """Hollow circle for the reference, square for those between, full circle for the candidate."""
    if number == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
    if number < count - 1:
        return f'<rect x="{x - 3.4:.1f}" y="{y - 3.4:.1f}" width="6.8" height="6.8"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.6"/>'


def _say(rows: Sequence[Dot]) -> str:
    said = []
    for row in rows:
        if row.value is not None:
            bounds = f" ({100 * row.low:.0f} to {100 * row.high:.0f})" if row.low is not None and row.high else ""
            said.append(f"{row.label} {100 * row.value:.0f} %{bounds}")
    return ", ".join(said) or "no scores"


def _trend(series: Sequence[Curve]) -> str:
    ends = [(line.label, line.points[0][1], line.points[-1][1]) for line in series if line.points]
    return ", ".join(f"{label} from {first:.3g} to {last:.3g}" for label, first, last in ends)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of equal runs of points: the shape stays, the file stays small."""
    size = math.ceil(len(points) / POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), max(size, 1))]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _inside(value: float) -> float:
    return min(1.0, max(0.0, value))


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<path class="{name}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, parts: Sequence[str], name: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
