"""Tokens a second over tree size: what paths and step cost promise, and what the clock says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medusa_native.axes import HEADLINE, HEIGHT, LEFT, WIDTH, Axes
from medusa_native.svg import Svg

if TYPE_CHECKING:
    from medusa_native.tuning.verify import Speed

_EXPECTED, _MEASURED = "#2a6fb0", "#d1622b"


def plot_speeds(expected: Sequence[tuple[int, float]], measured: Sequence[Speed]) -> str:
    """Return an SVG: a line of what is expected, discs of what was measured.

    Parameters
    ----------
    expected
        Nodes, root included, and tokens a second.
    """
    values = [speed for _, speed in expected] + [speed.measured for speed in measured]
    axes = Axes((0, max(nodes for nodes, _ in expected)), (0, 1.08 * max(values)))
    svg = Svg(WIDTH, HEIGHT, "Tokens a second over tree size")
    axes.draw(svg, "nodes of the tree", "tokens a second")
    svg.polyline([axes.at(n, s) for n, s in expected], stroke=_EXPECTED, stroke_width=2)
    for speed in measured:
        tip = f"{speed.nodes} nodes: {speed.measured:.1f} tokens/s, expected {speed.expected:.1f}"
        svg.circle(axes.at(speed.nodes, speed.measured), 4, tip, fill=_MEASURED)
    svg.text((LEFT, HEADLINE), "expected", fill=_EXPECTED)
    svg.text((LEFT + 70, HEADLINE), "measured", fill=_MEASURED)
    return str(svg)
