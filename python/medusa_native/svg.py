"""Drawings in SVG: a canvas, a few shapes, and text. Nothing but strings."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

Point = tuple[float, float]
FONT = "system-ui, sans-serif"


class Svg:
    """A canvas of `width` by `height` that shapes are added to, one above the other."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._shapes: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, **style: object) -> None:
        """Add a rectangle."""
        self._add("rect", {"x": x, "y": y, "width": width, "height": height} | style)

    def circle(self, center: Point, radius: float, tip: str | None = None, **style: object) -> None:
        """Add a disc; `tip` shows when the pointer rests on it."""
        x, y = center
        self._add("circle", {"cx": x, "cy": y, "r": radius} | style, tip)

    def line(self, start: Point, end: Point, **style: object) -> None:
        """Add a straight line."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2} | style)

    def polyline(self, points: Sequence[Point], **style: object) -> None:
        """Add a line through all points."""
        listed = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add("polyline", {"points": listed, "fill": "none"} | style)

    def text(self, at: Point, text: str, **style: object) -> None:
        """Add a line of text that starts, or with `text_anchor` is centred or ends, at a point."""
        x, y = at
        self._add("text", {"x": x, "y": y} | style, escape(text), raw=True)

    def __str__(self) -> str:
        width, height = map(_number, self._size)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="{FONT}" font-size="12">'
        )
        parts = [head, f"<title>{escape(self._title)}</title>", *self._shapes, "</svg>"]
        return "\n".join(parts) + "\n"

    def _add(
        self,
        name: str,
        attributes: dict[str, object],
        content: str | None = None,
        raw: bool = False,
    ) -> None:
        listed = " ".join(
            f"{key.replace('_', '-')}={quoteattr(_number(value))}"
            for key, value in attributes.items()
        )
        if content is None:
            self._shapes.append(f"<{name} {listed}/>")
            return
        inner = content if raw else f"<title>{escape(content)}</title>"
        self._shapes.append(f"<{name} {listed}>{inner}</{name}>")


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
