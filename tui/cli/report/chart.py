"""Draws a chart of several runs as an SVG element, with the values that the page's script shows under the pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from engine.events.metric import Metric
from engine.events.series import Point
from tui.app.state.raster import linear_axis
from tui.text import format as fmt
from tui.text.axis_text import chart_unit, tick_labels

WIDTH, HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 22
_DIGITS = 5  # significant, of a value


@dataclass(frozen=True, slots=True)
class Line:
    """One series of one run: ``colour`` 0 to 7, ``dashed`` for a second one of the same run."""

    label: str
    colour: int
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """A mark on a chart: what happened at a step of the run with this ``colour``."""

    step: float
    text: str
    colour: int


def draw(metric: Metric, lines: Sequence[Line], flags: Sequence[Flag], points: int) -> str:
    """Return the HTML of a chart; each line has at most ``points`` points. "" if there is nothing but zeros."""
    reduced = [(line, _reduced(line.points, points)) for line in lines]
    known = [point for _, found in reduced for point in found if point[2] is not None]
    if not known:
        return ""
    low = min(point[1] if len(lines) == 1 else point[2] for point in known)  # type: ignore[type-var]
    high = max(point[3] if len(lines) == 1 else point[2] for point in known)  # type: ignore[type-var]
    assert low is not None and high is not None
    if low == high == 0:
        return ""
    unit, size = chart_unit(metric, high)
    axis = linear_axis(low, high, 4, size)
    first, last = min(point[0] for point in known), max(point[0] for point in known)
    scale = _Scale(first, last, axis.low, axis.high)
    title, text = metric.title, fmt.formatter(metric.format)
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{scale.y(tick):.1f}" y2="{scale.y(tick):.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{scale.y(tick) + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
        for tick, label in zip(axis.ticks, tick_labels(axis.ticks, size), strict=True)
    ]
    parts += _steps(scale)
    for flag in flags:
        if first <= flag.step <= last:
            x = scale.x(flag.step)
            parts.append(
                f'<line class="flag c{flag.colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}">'
                f"<title>step {fmt.exact(flag.step)}: {escape(flag.text)}</title></line>"
            )
    for line, found in reduced:
        if len(lines) == 1:
            parts.append(f'<path class="band c{line.colour}" d="{scale.band(found)}"/>')
        dash = " dashed" if line.dashed else ""
        parts.append(f'<path class="line c{line.colour}{dash}" d="{scale.path(found)}"/>')
    data = {
        "x": [scale.first, scale.last, _LEFT, WIDTH - _RIGHT],
        "y": [scale.low, scale.high, HEIGHT - _BOTTOM, _TOP],
        "lines": [
            {"n": line.label, "c": line.colour, "x": [point[0] for point in found], "y": [text(p[2]) for p in found]}
            for line, found in reduced
        ],
    }
    shown_unit = f" <small>{escape(unit)}</small>" if unit and "/" not in title else ""  # tok/s says it itself
    return (
        f"<figure><figcaption><span>{escape(title)}{shown_unit}</span><output>{_legend(lines)}</output></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by step">{"".join(parts)}'
        f'<line class="pointer" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/></svg>'
        f'<script type="application/json">{_json(data)}</script></figure>'
    )


def _legend(lines: Sequence[Line]) -> str:
    """Return the key of each solid line, and one for all dashed ones; "" for a line alone."""
    keys = [f'<span class="key c{line.colour}">{escape(line.label)}</span>' for line in lines if not line.dashed]
    dashed = [line for line in lines if line.dashed]
    colour = f" c{dashed[0].colour}" if len(dashed) == 1 else ""
    keys += [f'<span class="key dashed{colour}">validation</span>'] * bool(dashed)
    return "".join(keys) if len(lines) > 1 else ""


def _steps(scale: _Scale) -> list[str]:
    """Return the labels of the steps: round ones, that at the right end within the drawing."""
    ticks = [tick for tick in linear_axis(scale.first, scale.last, 4).ticks if scale.first <= tick <= scale.last]
    ticks = [tick for tick in ticks if tick == int(tick)] or [scale.first]
    labels = [
        (min(scale.x(tick), WIDTH - 3 - 3 * len(label)), label)
        for tick, label in zip(ticks, tick_labels(ticks), strict=True)
    ]
    return [f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{label}</text>' for x, label in labels]


class _Scale:
    """Places steps and values on the drawing."""

    def __init__(self, first: float, last: float, low: float, high: float) -> None:
        self.first, self.last, self.low, self.high = first, last, low, high

    def x(self, step: float) -> float:
        return _LEFT + (step - self.first) / ((self.last - self.first) or 1) * (WIDTH - _RIGHT - _LEFT)

    def y(self, value: float) -> float:
        bottom = HEIGHT - _BOTTOM
        return bottom - (value - self.low) / ((self.high - self.low) or 1) * (bottom - _TOP)

    def path(self, points: Sequence[Point]) -> str:
        """Return the line through the means; a gap interrupts it."""
        words, pen = [], "M"
        for x, _, mean, _ in points:
            if mean is None:
                pen = "M"
                continue
            words.append(f"{pen}{self.x(x):.1f} {self.y(mean):.1f}")
            pen = "L"
        return "".join(words)

    def band(self, points: Sequence[Point]) -> str:
        """Return the area between lowest and highest values."""
        known = [(x, low, high) for x, low, _, high in points if low is not None and high is not None]
        above = [f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in known]
        below = [f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in reversed(known)]
        return f"M{'L'.join([*above, *below])}Z" if known else ""


def _reduced(points: Sequence[Point], count: int) -> list[Point]:
    """Return at most ``count`` points, each for a group of neighbours: its last x, lowest, mean and highest value."""
    group = -(-len(points) // count) or 1
    found: list[Point] = []
    for begin in range(0, len(points), group):
        part = points[begin : begin + group]
        known = [(low, mean, high) for _, low, mean, high in part if low is not None and mean is not None]
        if not known:
            found.append((part[-1][0], None, None, None))
            continue
        lows, means, highs = zip(*known, strict=True)
        mean = math.fsum(means) / len(means)
        found.append((part[-1][0], min(lows), mean, max(high for high in highs if high is not None)))
    return found


def _json(data: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
