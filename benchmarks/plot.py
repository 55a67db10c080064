"""One curve of labelled points as an SVG that needs nothing but a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 50, 60
INK, GREY, BLUE, ORANGE = "#1f2933", "#6b7785", "#2f6fb3", "#d9822b"


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    label: str
    marked: bool = False  # drawn apart from the curve


@dataclass(frozen=True)
class Axis:
    """Values low to high laid over pixels first to last."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Five to ten round values."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        for factor in (1, 2, 5):
            if (self.high - self.low) / (step * factor) <= 10:
                step *= factor
                break
        start = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(start, math.floor(self.high / step + 1e-9) + 1)]


def axis(values: Sequence[float], first: float, last: float) -> Axis:
    """An axis with a little room around the values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return Axis(low - room, high + room, first, last)


def text(x: float, y: float, content: str, *, size: int = 12, anchor: str = "middle",
         fill: str = INK, more: str = "") -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
        f"{more}>{escape(content)}</text>"
    )


def grid(x: Axis, y: Axis) -> list[str]:
    lines = []
    for value in x.ticks():
        at = x.at(value)
        lines.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e8ed"/>')
        lines.append(text(at, HEIGHT - BOTTOM + 18, f"{value:.6g}", fill=GREY))
    for value in y.ticks():
        at = y.at(value)
        lines.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e4e8ed"/>')
        lines.append(text(LEFT - 8, at + 4, f"{value:.6g}", anchor="end", fill=GREY))
    return lines


def curve(points: Sequence[Point], x: Axis, y: Axis) -> list[str]:
    line = " ".join(f"{x.at(p.x):.1f},{y.at(p.y):.1f}" for p in points if not p.marked)
    drawn = [f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2"/>']
    for p in points:
        fill = ORANGE if p.marked else BLUE
        drawn.append(f'<circle cx="{x.at(p.x):.1f}" cy="{y.at(p.y):.1f}" r="4" fill="{fill}"/>')
        drawn.append(text(x.at(p.x) + 8, y.at(p.y) - 8, p.label, size=11, anchor="start"))
    return drawn


def save_plot(path: Path, title: str, x_title: str, y_title: str, points: Sequence[Point]) -> Path:
    """Draw points, those not marked joined in their order."""
    x = axis([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = axis([p.y for p in points], HEIGHT - BOTTOM, TOP)
    turned = f' transform="rotate(-90 18 {HEIGHT / 2})"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"',
        f'aria-label="{escape(title)}" font-family="system-ui, Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>',
        text(LEFT, 28, title, size=15, anchor="start"),
        *grid(x, y),
        *curve(points, x, y),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, x_title),
        text(18, HEIGHT / 2, y_title, more=turned),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")
    return path
