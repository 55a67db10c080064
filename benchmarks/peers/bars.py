"""Tokens a second as bars, one group for each format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medusa_native.axes import round_values
from medusa_native.svg import Svg

WIDTH, ROW, TOP = 720.0, 20.0, 44.0
LEFT, RIGHT = 210.0, WIDTH - 60.0
PEER, OURS, MEDUSA, INK, GRID = "#9aa3ad", "#2a6fb0", "#d1622b", "#6b7680", "#c9ced4"

Groups = Mapping[str, Mapping[str, float]]  # format to name to tokens a second


def colour(name: str) -> str:
    return MEDUSA if "Medusa" in name else OURS if name.startswith("ours") else PEER


def save_bars(path: Path, title: str, groups: Groups) -> Path:
    """Draw the groups one below the other, on one scale."""
    rows = sum(len(bars) + 1.5 for bars in groups.values())
    svg = Svg(WIDTH, TOP + ROW * rows + 8, title)
    svg.text((16, 20), title, fill=INK, font_weight="bold")
    most = max(value for bars in groups.values() for value in bars.values())
    _grid(svg, most, TOP + ROW * rows)
    y = TOP
    for name, bars in groups.items():
        svg.text((16, y + 14), name, fill=INK, font_weight="bold")
        y = _bars(svg, y + ROW, bars, most) + ROW / 2
    path.write_text(str(svg), encoding="utf-8")
    return path


def _grid(svg: Svg, most: float, bottom: float) -> None:
    for value in round_values((0.0, most)):
        x = LEFT + (RIGHT - LEFT) * value / most
        svg.line((x, TOP - 8), (x, bottom), stroke=GRID, stroke_width=0.5)
        svg.text((x, TOP - 12), f"{value:g}", fill=INK, text_anchor="middle")


def _bars(svg: Svg, y: float, bars: Mapping[str, float], most: float) -> float:
    """Draw one group from `y` on; return where it ends."""
    for name, value in bars.items():
        width = (RIGHT - LEFT) * value / most
        svg.text((LEFT - 8, y + 14), name, fill=INK, text_anchor="end")
        svg.rect(LEFT, y + 3, width, ROW - 6, fill=colour(name))
        svg.text((LEFT + width + 6, y + 14), f"{value:.0f}", fill=colour(name))
        y += ROW
    return y
