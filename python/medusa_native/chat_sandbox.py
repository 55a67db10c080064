"""A Jinja environment for templates written by strangers.

Jinja's sandbox keeps a template from reaching Python. On top of it a budget bounds loop rounds,
seconds, the size of every value and of the output, so that rendering always ends: loops, literals,
concatenations and printing are rerouted in the syntax tree, and only operators, filters and methods
whose results are bounded by their inputs, or checked beforehand, are there at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_MAX_SECONDS = 10.0
_MAX_ROUNDS = 1_000_000  # loop rounds and calls
_MAX_SIZE = 8 * 1024 * 1024  # characters of one value, and of all output
_ELEMENT = 16  # what an element of a list or a mapping weighs, in characters
_MAX_WHOLE = 10**18
_MAX_STRIP = 1000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_METHODS = _words(
    "capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper join "
    "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper"
)
_FILTERS = _words(
    "abs capitalize count d default dictsort e escape first float forceescape groupby int items "
    "last length list lower map max min reject rejectattr reverse safe select selectattr sort "
    "string title unique upper wordcount"
)


class Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._rounds = _MAX_ROUNDS
        self._output = _MAX_SIZE
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


def _bounded(value: Any) -> Any:
    _weight(value)
    return value


def _concat(parts: list[Any]) -> str:
    return "".join(map(str, _bounded(parts)))


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
        _bounded(value),
        ensure_ascii=ensure_ascii,
        indent=None if indent is None else min(indent, 16),
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:_MAX_STRIP])


class _Guard(NodeTransformer):
    """Reroutes loops, literals, concatenations and printing through filters of the environment."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Rewrite the children, then the node."""
        node = self.generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.Output):
            node.nodes = [_through("_output", _constant(child)) for child in node.nodes]
        elif isinstance(node, nodes.For):
            node.iter = _through("_rounds", _plain_loop(node).iter)
        elif isinstance(node, nodes.Concat):
            return _through("_concat", nodes.List(node.nodes, lineno=node.lineno))
        elif isinstance(node, nodes.List | nodes.Dict) or (
            isinstance(node, nodes.Tuple) and node.ctx == "load"
        ):
            return _through("_bounded", node)
        return node


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _constant(node: nodes.Node) -> nodes.Node:
    """Template text as an expression, so that printing it can be counted."""
    return (
        nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node
    )


def _plain_loop(node: nodes.For) -> nodes.For:
    if node.recursive:
        raise jinja2.TemplateSyntaxError("recursive loops are not available", node.lineno)
    return node


class SandboxedEnvironment(ImmutableSandboxedEnvironment):
    """The environment chat templates expect, within a budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self.budget = Budget()
        stock = {name: _checked(self.filters[name]) for name in _FILTERS}
        self.filters = stock | _OWN_FILTERS | {"_rounds": self._pay_rounds}
        self.filters["_output"] = self._pay_output
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def guarded_template(self, source: str) -> jinja2.Template:
        """Compile a template whose loops and values are paid from `budget`."""
        tree: nodes.Template = _Guard().visit(self.parse(source))
        tree.set_environment(self)
        return self.from_string(tree)

    def _pay_rounds(self, items: Iterable[Any]) -> Iterable[Any]:
        return items if isinstance(items, jinja2.Undefined) else _Rounds(items, self)

    @jinja2.pass_context  # also keeps it from being folded when the template is compiled
    def _pay_output(self, _context: Context, value: Any) -> Any:
        self.budget.spend_output(value)
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator whose result could be out of proportion to its operands."""
        if operator == "**" or (operator == "%" and isinstance(left, str | bytes)):
            raise SecurityError(f"'{operator}' is not available")
        if operator == "*":
            _require_product(left, right)
        elif operator == "+":
            _require_size(_weight(left) + _weight(right))
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow the methods of texts that are bounded; otherwise as in the base."""
        if isinstance(obj, str | bytes) and attr not in _METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` to `is_safe_attribute`, which refuses it."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, macro or method within the budget."""
        self.budget.spend_round()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in _OWN_METHODS:
            return _OWN_METHODS[name](obj, owner, *args)
        return _bounded_result(super().call(context, obj, *args, **kwargs))


def _bounded_result(value: Any) -> Any:
    return value if isinstance(value, Namespace) else _bounded(value)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a stock filter so that its result is bounded; its `pass_context` mark is kept."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return _bounded_result(function(*args, **kwargs))

    wrapper.__dict__.update(getattr(function, "__dict__", {}))
    return wrapper


def _require_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int):
            if abs(times) > _MAX_WHOLE:
                raise _refusal(f"a number beyond {_MAX_WHOLE}")
            if not isinstance(value, int | float):
                _require_size(_weight(value) * abs(times))


class _Rounds:
    """An iterable that pays for each item and has its source's length, if any."""

    def __init__(self, items: Iterable[Any], environment: SandboxedEnvironment) -> None:
        self._items = items
        self._environment = environment

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._environment.budget.spend_round()
            yield item


_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "tojson": _tojson,
    "trim": _trim,
    "_bounded": _bounded,
    "_concat": _concat,
}
_OWN_METHODS: dict[str, Callable[..., str]] = {
    "join": lambda _method, text, parts: _join(parts, text),
    "replace": lambda _method, *args: _replace(*args),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), lambda method, _text, *a: _strip(method, *a)),
}
