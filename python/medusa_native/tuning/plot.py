"""Tokens a second over tree size: what paths and step cost promise, and what the clock says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medusa_native.svg import Point, Svg

if TYPE_CHECKING:
    from medusa_native.tuning.verify import Speed

_WIDTH, _HEIGHT = 640.0, 360.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 16.0, 32.0, 44.0
_EXPECTED, _MEASURED, _GREY = "#2a6fb0", "#d1622b", "#9aa3ad"


def plot_speeds(expected: Sequence[tuple[int, float]], measured: Sequence[Speed]) -> str:
    """Return an SVG: a line of what is expected, discs of what was measured.

    Parameters
    ----------
    expected
        Nodes, root included, and tokens a second.
    """
    values = [speed for _, speed in expected] + [speed.measured for speed in measured]
    frame = _Frame(max(nodes for nodes, _ in expected), 1.08 * max(values))
    svg = Svg(_WIDTH, _HEIGHT, "Tokens a second over tree size")
    frame.draw(svg)
    svg.polyline([frame.at(n, s) for n, s in expected], stroke=_EXPECTED, stroke_width=2)
    for speed in measured:
        tip = f"{speed.nodes} nodes: {speed.measured:.1f} tokens/s, expected {speed.expected:.1f}"
        svg.circle(frame.at(speed.nodes, speed.measured), 4, tip, fill=_MEASURED)
    svg.text((_LEFT, 18.0), "expected", fill=_EXPECTED)
    svg.text((_LEFT + 70, 18.0), "measured", fill=_MEASURED)
    return str(svg)


class _Frame:
    """Axes from zero to the largest values."""

    def __init__(self, most_nodes: int, most_speed: float) -> None:
        self._x, self._y = most_nodes, most_speed

    def at(self, nodes: float, speed: float) -> Point:
        """Place of a value on the canvas."""
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * nodes / self._x
        return x, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * speed / self._y

    def draw(self, svg: Svg) -> None:
        """Draw axes, grid and labels."""
        for speed in _ticks(self._y):
            svg.line(self.at(0, speed), self.at(self._x, speed), stroke=_GREY, stroke_width=0.3)
            x, y = self.at(0, speed)
            svg.text((x - 6, y + 4), f"{speed:g}", fill=_GREY, text_anchor="end")
        for nodes in _ticks(self._x):
            x, y = self.at(nodes, 0)
            svg.text((x, y + 16), f"{nodes:g}", fill=_GREY, text_anchor="middle")
        middle, bottom = self.at(self._x / 2, 0)
        svg.text((middle, bottom + 34), "nodes of the tree", fill=_GREY, text_anchor="middle")
        svg.text((_WIDTH - _RIGHT, 18.0), "tokens a second", fill=_GREY, text_anchor="end")


def _ticks(most: float) -> list[float]:
    """Round numbers from zero to `most`, four to nine of them."""
    step = 10.0 ** math.floor(math.log10(most))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if most / s < 9)
    return [i * step for i in range(int(most / step) + 1)]
