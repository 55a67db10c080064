"""What happened in a training run: JSON Lines, and the losses as a drawing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medusa_native.json_text import parse_json
from medusa_native.svg import Svg

if TYPE_CHECKING:
    from pathlib import Path

_WIDTH, _HEIGHT, _MARGIN = 720, 320, 48
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


class TrainingLog:
    """One object a line: ``{"step": 7, "loss": ...}`` of updates and of validations.

    Parameters
    ----------
    path
        Gone on with, but for what was written after `step` updates.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self.entries = [entry for entry in _read(path) if entry["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        path.write_text(text, encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        """Append a line."""
        self.entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a log; a torn last one is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [parse_json(line.encode()) for line in lines]


def draw_losses(entries: Sequence[dict[str, Any]]) -> str:
    """Return an SVG of the backbone's and every head's loss over the updates."""
    updates = [entry for entry in entries if "head_loss" in entry]
    curves = {"backbone": [(e["step"], e["backbone_loss"]) for e in updates if e["backbone_loss"]]}
    for head in range(len(updates[0]["head_loss"]) if updates else 0):
        curves[f"head {head + 1}"] = [(e["step"], e["head_loss"][head]) for e in updates]
    svg = Svg(_WIDTH, _HEIGHT, "losses")
    points = [point for curve in curves.values() for point in curve] or [(1, 1.0)]
    last, most = max(x for x, _ in points), max(y for _, y in points) or 1.0
    inner = (_WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN)

    def place(step: float, loss: float) -> tuple[float, float]:
        return _MARGIN + inner[0] * step / last, _HEIGHT - _MARGIN - inner[1] * loss / most

    svg.line(place(0, 0), place(last, 0), stroke="#888")
    svg.line(place(0, 0), place(0, most), stroke="#888")
    svg.text((_WIDTH / 2, _HEIGHT - 12), f"update (1 to {last})", text_anchor="middle")
    svg.text((_MARGIN - 6, _MARGIN), f"{most:.2f}", text_anchor="end")
    for i, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        svg.polyline([place(*point) for point in curve], stroke=colour, stroke_width=1.2)
        svg.text((_WIDTH - _MARGIN - 70, _MARGIN + 15 * i), name, fill=colour)
    return str(svg)
