"""One curve of labelled points as an SVG that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medusa_native.axes import HEADLINE, HEIGHT, LEFT, WIDTH, Axes, Range
from medusa_native.svg import Svg

BLUE, ORANGE = "#2a6fb0", "#d1622b"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    label: str
    marked: bool = False  # drawn apart from the curve


def with_room(values: Sequence[float]) -> Range:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room


def save_plot(path: Path, title: str, x_title: str, y_title: str, points: Sequence[Point]) -> Path:
    """Draw points, those not marked joined in their order."""
    axes = Axes(with_room([p.x for p in points]), with_room([p.y for p in points]))
    svg = Svg(WIDTH, HEIGHT, title)
    axes.draw(svg, x_title, y_title)
    svg.text((LEFT, HEADLINE), title, fill=BLUE)
    curve = [axes.at(p.x, p.y) for p in points if not p.marked]
    svg.polyline(curve, stroke=BLUE, stroke_width=2)
    for p in points:
        x, y = axes.at(p.x, p.y)
        fill = ORANGE if p.marked else BLUE
        svg.circle((x, y), 4, fill=fill)
        svg.text((x + 8, y - 8), p.label, fill=fill)
    path.write_text(str(svg), encoding="utf-8")
    return path
