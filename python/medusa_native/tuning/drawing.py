"""Drawings of a tree, in the terminal and as SVG, and of speed over tree size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree as Drawing

from medusa_native.errors import InvalidArgument
from medusa_native.svg import Point, Svg
from medusa_native.tuning.plot import plot_speeds

if TYPE_CHECKING:
    from medusa_native.tuning.run import TuneReport

Paths = Sequence[Sequence[int]]
_COLUMN, _ROW, _MARGIN = 130.0, 20.0, 24.0
_GREEN, _GREY = "#2a8c55", "#9aa3ad"


def draw_tree(paths: Paths, probabilities: Sequence[float]) -> Drawing:
    """Draw a tree for the terminal: of each node the rank of its guess, and how often it is right.

    Parameters
    ----------
    paths
        In an order in which parents come first.
    probabilities
        Of the paths, in the same order; further ones are not looked at.
    """
    drawing = Drawing("root")
    branches: dict[tuple[int, ...], Drawing] = {(): drawing}
    for path, probability in zip(paths, probabilities, strict=False):
        label = Text.assemble(str(path[-1]), (f"  {100 * probability:.1f} %", "dim"))
        branches[tuple(path)] = branches[tuple(path[:-1])].add(label)
    return drawing


def tree_svg(paths: Paths, probabilities: Sequence[float]) -> str:
    """Draw a tree from left to right, a column a head, a row a leaf; discs are areas of
    probability.
    """  # noqa: D205
    chance = {tuple(p): c for p, c in zip(paths, probabilities, strict=False)}
    places = _places(sorted(chance))
    depth = max((len(path) for path in chance), default=0)
    height = 2 * _MARGIN + _ROW * (1 + max(y for _, y in places.values()))
    svg = Svg((depth + 1) * _COLUMN, height, "Tree of guesses")
    for path, place in places.items():
        if path:
            svg.line(_at(places[path[:-1]]), _at(place), stroke=_GREY, stroke_width=1)
    for path, place in places.items():
        _draw_node(svg, path, _at(place), chance.get(path, 1.0))
    for head in range(1, depth + 1):
        svg.text((_MARGIN + head * _COLUMN, 14.0), f"head {head}", fill=_GREY)
    return str(svg)


def _draw_node(svg: Svg, path: tuple[int, ...], at: Point, chance: float) -> None:
    svg.circle(at, 2 + 6 * chance**0.5, f"{list(path)}: {100 * chance:.2f} %", fill=_GREEN)
    label = f"{path[-1]} · {100 * chance:.1f} %" if path else "root"
    svg.text((at[0] + 11, at[1] + 4), label, fill="currentColor")


def _places(paths: list[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, float]]:
    """Column and row of each node: leaves below each other, parents beside their first child."""
    places: dict[tuple[int, ...], tuple[int, float]] = {}
    next_row = 0.0
    parents = {path[:-1] for path in paths}
    for path in sorted(paths):  # a parent, then its subtrees in order of rank
        places[path] = (len(path), next_row)
        if path not in parents:
            next_row += 1
    return {(): (0, 0.0)} | places


def _at(place: tuple[int, float]) -> Point:
    column, row = place
    return _MARGIN + column * _COLUMN, 2 * _MARGIN + row * _ROW


def write_drawings(report: TuneReport, folder: Path) -> list[Path]:
    """Write `tree.svg` and `speed.svg`.

    Raises
    ------
    InvalidArgument
        The folder cannot be written.
    """
    table = report.tuning.table
    tree = tree_svg(report.tree_paths, table.probabilities)
    drawings = {"tree.svg": tree, "speed.svg": plot_speeds(report.expected, report.speeds)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in drawings.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"{folder}: cannot be written: {error}") from error
    return [folder / name for name in drawings]
