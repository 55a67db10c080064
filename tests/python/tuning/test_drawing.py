"""Drawings: well-formed, complete, and with the numbers they are about."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from rich.console import Console

from medusa_native.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axes
from medusa_native.svg import Svg
from medusa_native.tuning.drawing import draw_tree, tree_svg
from medusa_native.tuning.plot import plot_speeds
from medusa_native.tuning.verify import Speed

PATHS = ((0,), (0, 0), (1,), (0, 1), (0, 0, 0))
CHANCES = (0.5, 0.25, 0.125, 0.1, 0.05)


def elements(svg: str, name: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall(f"{{http://www.w3.org/2000/svg}}{name}")


def test_svg_escapes() -> None:
    svg = Svg(10, 10, "a < b")
    svg.text((1, 2), '"<&>"', fill='a"b')
    (text,) = elements(str(svg), "text")
    assert text.text == '"<&>"'
    assert text.get("fill") == 'a"b'


def test_every_node_has_rank_and_probability() -> None:
    svg = tree_svg(PATHS, CHANCES)
    labels = [text.text for text in elements(svg, "text")]
    for path, chance in zip(PATHS, CHANCES, strict=True):
        assert f"{path[-1]} · {100 * chance:.1f} %" in labels
    assert len(elements(svg, "circle")) == len(PATHS) + 1
    assert len(elements(svg, "line")) == len(PATHS)


def test_nodes_do_not_cover_each_other() -> None:
    places = [(c.get("cx"), c.get("cy")) for c in elements(tree_svg(PATHS, CHANCES), "circle")]
    assert len(set(places)) == len(places)


def test_a_tree_of_its_root_alone() -> None:
    assert len(elements(tree_svg((), ()), "circle")) == 1


def test_in_the_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(draw_tree(PATHS, CHANCES))
    shown = console.export_text()
    assert shown.startswith("root")
    assert re.findall(r"(\d+)  ([\d.]+) %", shown) == [
        ("0", "50.0"), ("0", "25.0"), ("0", "5.0"), ("1", "10.0"), ("1", "12.5"),
    ]  # fmt: skip


def test_plot_has_a_disc_for_each_measurement() -> None:
    expected = [(1, 100.0), (2, 120.0), (4, 110.0)]
    measured = [Speed(1, 10, 1.0, 100.0, 99.0), Speed(4, 5, 1.9, 110.0, 112.0)]
    svg = plot_speeds(expected, measured)
    (line,) = elements(svg, "polyline")
    assert len((line.get("points") or "").split()) == 3
    low, high = (float(c.get("cy") or 0) for c in elements(svg, "circle"))
    assert high < low  # faster is higher up


def test_axes_may_begin_anywhere() -> None:
    axes = Axes((79.0, 101.0), (-0.25, 0.75))
    assert axes.at(79, -0.25) == (LEFT, BOTTOM)
    assert axes.at(101, 0.75) == (RIGHT, TOP)
    svg = Svg(WIDTH, HEIGHT, "plot")
    axes.draw(svg, "across", "up")
    labels = [text.text for text in elements(str(svg), "text")]
    up = ["-0.2", "0", "0.2", "0.4", "0.6"]
    assert labels == [*up, "80", "85", "90", "95", "100", "across", "up"]
