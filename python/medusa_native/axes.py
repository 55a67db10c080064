"""Axes of a plot: where values lie on its canvas, over a grid at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medusa_native.svg import Point, Svg

WIDTH, HEIGHT = 640.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, WIDTH - 16.0, 32.0, HEIGHT - 44.0
HEADLINE = 18.0  # above the grid
_GREY = "#9aa3ad"

Range = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """Two axes, each from its lowest to its highest value."""

    x: Range
    y: Range

    def at(self, x: float, y: float) -> Point:
        """Place of a value on the canvas."""
        return (
            LEFT + (RIGHT - LEFT) * (x - self.x[0]) / (self.x[1] - self.x[0]),
            BOTTOM - (BOTTOM - TOP) * (y - self.y[0]) / (self.y[1] - self.y[0]),
        )

    def draw(self, svg: Svg, x_title: str, y_title: str) -> None:
        """Draw grid, numbers and titles."""
        for value in round_values(self.y):
            x, y = self.at(self.x[0], value)
            svg.line((x, y), (RIGHT, y), stroke=_GREY, stroke_width=0.3)
            svg.text((x - 6, y + 4), f"{value:g}", fill=_GREY, text_anchor="end")
        for value in round_values(self.x):
            x, _ = self.at(value, self.y[0])
            svg.text((x, BOTTOM + 16), f"{value:g}", fill=_GREY, text_anchor="middle")
        svg.text(((LEFT + RIGHT) / 2, BOTTOM + 34), x_title, fill=_GREY, text_anchor="middle")
        svg.text((RIGHT, HEADLINE), y_title, fill=_GREY, text_anchor="end")


def round_values(values: Range) -> list[float]:
    """Return four to nine round numbers within a range."""
    low, high = values
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s < 9)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
