"""What a template may spend, and filters and methods that keep within it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

_MAX_SECONDS = 10.0
_MAX_ROUNDS = 1_000_000  # loop rounds and calls
_MAX_SIZE = 8 * 1024 * 1024  # characters of one value, and of all output
_ELEMENT = 16  # what an element of a list or a mapping weighs, in characters
_MAX_WHOLE = 10**18
_MAX_STRIP = 1000


class Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._rounds = _MAX_ROUNDS
        self._output = self._streamed = _MAX_SIZE
        self._deadline = time.monotonic() + _MAX_SECONDS

    def spend_round(self) -> None:
        """Pay for one round of a loop or one call."""
        self._rounds -= 1
        if self._rounds < 0 or time.monotonic() > self._deadline:
            raise _refusal(f"more than {_MAX_ROUNDS} loop rounds or {_MAX_SECONDS:g} seconds")

    def spend_output(self, value: Any) -> None:
        """Pay for printing a value."""
        self._output -= _weight(value)
        if self._output < 0:
            raise _refusal(f"more than {_MAX_SIZE} characters of output")

    def stream(self, items: Iterator[Any]) -> Iterator[Any]:
        """Pay for each item of an iterator, so that collecting it is bounded."""
        for item in items:
            self._streamed -= _weight(item)
            if self._streamed < 0:
                raise _refusal(f"more than {_MAX_SIZE} characters in lists")
            yield item


def _refusal(problem: str) -> jinja2.TemplateError:
    return jinja2.TemplateRuntimeError(problem)


def _require_size(size: int) -> None:
    if size > _MAX_SIZE:
        raise _refusal(f"a value of more than {_MAX_SIZE} characters")


def _weight(value: Any) -> int:
    """Characters reachable from a value, elements included; raises when they are too many."""
    total, pending = 0, [value]
    while pending:
        item = pending.pop()
        total += len(item) + _ELEMENT if isinstance(item, str | bytes) else _ELEMENT
        if isinstance(item, Namespace):
            raise SecurityError("a namespace cannot be printed or stored")
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set):
            pending.extend(item)
        _require_size(total + _ELEMENT * len(pending))
    return total


def bounded(value: Any) -> Any:
    """Return the value, unless it is too large."""
    _weight(value)
    return value


def _concat(parts: list[Any]) -> str:
    return "".join(map(str, bounded(parts)))


def _join(parts: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    items = [part if attribute is None else part[attribute] for part in parts]
    _require_size(_weight(items) + len(items) * len(d))
    return d.join(map(str, items))


def _replace(text: str, old: str, new: str, count: int | None = None) -> str:
    text = str(text)
    _require_size(len(text) + (text.count(old) + 1) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    pad = width if isinstance(width, str) else " " * min(width, 100)
    lines = str(text).splitlines() or [""]
    _require_size(len(text) + len(lines) * len(pad))
    padded = [pad + line if line or blank else line for line in lines]
    return "\n".join(padded if first else [lines[0], *padded[1:]])


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common":
        raise SecurityError("rounding by 'ceil' or 'floor' is not available")
    return round(value, max(-30, min(precision, 30)))


def _trim(text: str, chars: str | None = None) -> str:
    return _strip(str(text).strip, *([] if chars is None else [chars]))


def _strip(method: Callable[..., str], *chars: str) -> str:
    _require_size(0 if len("".join(chars)) <= _MAX_STRIP else _MAX_SIZE + 1)
    return method(*chars)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        bounded(value),
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else min(indent, 16),
        separators=separators,
        sort_keys=sort_keys,
    )


def raise_exception(message: str) -> None:
    """Let a template refuse a conversation."""
    raise jinja2.TemplateError(message)


def strftime_now(pattern: str) -> str:
    """Format the local time."""
    return datetime.now().strftime(pattern[:_MAX_STRIP])


def require_sum(left: Any, right: Any) -> None:
    """Refuse a sum or concatenation that would be too large."""
    _require_size(_weight(left) + _weight(right))


def require_product(left: Any, right: Any) -> None:
    """Refuse a product or repetition that would be too large."""
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int):
            if abs(times) > _MAX_WHOLE:
                raise _refusal(f"a number beyond {_MAX_WHOLE}")
            if not isinstance(value, int | float):
                _require_size(_weight(value) * abs(times))


FILTERS: dict[str, Callable[..., Any]] = {
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "tojson": _tojson,
    "trim": _trim,
    "_bounded": bounded,
    "_concat": _concat,
}
METHODS: dict[str, Callable[..., str]] = {
    "join": lambda _method, text, parts: _join(parts, text),
    "replace": lambda _method, *args: _replace(*args),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), lambda method, _text, *a: _strip(method, *a)),
}
