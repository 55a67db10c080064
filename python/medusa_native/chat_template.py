"""Chat templates: Jinja written by strangers, rendered in a sandbox with a budget.

The environment is the one Transformers documents: trimmed blocks, loop controls, `tojson`,
`raise_exception` and `strftime_now`. Jinja's sandbox keeps templates from reaching Python; the
budget on top bounds loop rounds, seconds and the size of every value, so rendering always ends.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from medusa_native.errors import InvalidArgument, MedusaError, ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_MAX_SECONDS = 10.0
_MAX_ROUNDS = 1_000_000  # loop rounds and calls
_MAX_SIZE = 16 * 1024 * 1024  # characters and elements of one value, and of all output
_MAX_TEMPLATE = 1024 * 1024
_MAX_WHOLE = 10**18
_COMPILE_ERRORS = (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError, ValueError)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STR_METHODS = _words(
    "capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper join "
    "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper"
)
_FILTERS = _words(
    "abs attr capitalize count d default dictsort e escape first float forceescape groupby int "
    "items join last length list lower map max min reject rejectattr replace reverse round safe "
    "select selectattr sort string sum title trim unique upper wordcount"
)


class _Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._rounds = _MAX_ROUNDS
        self._output = _MAX_SIZE
        self._deadline = time.monotonic() + _MAX_SECONDS

    def round(self) -> None:
        self._rounds -= 1
        if self._rounds < 0 or time.monotonic() > self._deadline:
            raise _refusal(f"more than {_MAX_ROUNDS} loop rounds or {_MAX_SECONDS} seconds")

    def output(self, value: Any) -> Any:
        self._output -= _weight(value)
        if self._output < 0:
            raise _refusal(f"more than {_MAX_SIZE} characters of output")
        return value


def _refusal(problem: str) -> jinja2.TemplateError:
    return jinja2.TemplateRuntimeError(problem)


def _weight(value: Any) -> int:
    """Characters and elements reachable from a value; raises when they are too many."""
    total, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set):
            pending.extend(item)
        total += len(item) + 1 if isinstance(item, str | bytes) else 1
        if total + len(pending) > _MAX_SIZE:
            raise _refusal(f"a value of more than {_MAX_SIZE} characters or elements")
    return total


def _bounded(value: Any) -> Any:
    _weight(value)
    return value


def _concat(parts: Sequence[Any]) -> str:
    return "".join(map(str, _bounded(list(parts))))


def _join(parts: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    items = [part[attribute] if attribute is not None else part for part in parts]
    _require_small(_weight(items) + len(items) * len(separator))
    return str(separator).join(map(str, items))


def _replace(text: str, old: str, new: str, count: int | None = None) -> str:
    text, old, new = str(text), str(old), str(new)
    limit = -1 if count is None else count
    _require_small(len(text) + (text.count(old) + 1) * len(new))
    return text.replace(old, new, limit)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    pad = width if isinstance(width, str) else " " * min(width, 100)
    lines = str(text).splitlines() or [""]
    _require_small(len(text) + len(lines) * len(pad))
    padded = [pad + line if line or blank else line for line in lines]
    return "\n".join(padded if first else [lines[0], *padded[1:]])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    indent = None if indent is None else min(indent, 16)
    return json.dumps(
        _bounded(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _require_small(size: int) -> None:
    if size > _MAX_SIZE:
        raise _refusal(f"a value of more than {_MAX_SIZE} characters or elements")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:1000])


_GUARDED_METHODS: dict[str, Callable[..., str]] = {
    "replace": _replace,
    "join": lambda text, parts: _join(parts, text),
}


class _Guard(NodeTransformer):
    """Routes loops, concatenations and literals of a template through the budget."""

    def _through(self, name: str, node: Any) -> nodes.Filter:
        return nodes.Filter(
            node, name, [], [], None, None, lineno=node.lineno, environment=node.environment
        )

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops are not available", node.lineno)
        self.generic_visit(node)
        node.iter = self._through("_rounds", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno, environment=node.environment)
        return self._through("_concat", parts)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._through("_bounded", node)

    visit_Dict = visit_List  # noqa: N815


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            finalize=self._output,
            cache_size=0,
        )
        self.budget = _Budget()
        self.filters = {name: self.filters[name] for name in _FILTERS} | {
            "join": _join,
            "replace": _replace,
            "indent": _indent,
            "tojson": _tojson,
            "_rounds": self._rounds,
            "_concat": _concat,
            "_bounded": _bounded,
        }
        names = ("range", "dict", "namespace")
        self.globals = {name: self.globals[name] for name in names} | {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def _output(self, value: Any) -> Any:
        return self.budget.output(value)

    def _rounds(self, items: Iterable[Any]) -> Iterable[Any]:
        return items if isinstance(items, jinja2.Undefined) else _Rounds(items, self)

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str | bytes)):
            raise jinja2.exceptions.SecurityError(f"'{operator}' is not available here")
        if operator == "*":
            _require_product(left, right)
        elif operator == "+":
            _require_small(_weight(left) + _weight(right))
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes) and attr not in _STR_METHODS:
            return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` to `is_safe_attribute`, which refuses it."""

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.round()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and obj.__name__ in _GUARDED_METHODS:
            return _GUARDED_METHODS[obj.__name__](owner, *args, **kwargs)
        return super().call(context, obj, *args, **kwargs)


def _require_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int):
            if abs(times) > _MAX_WHOLE:
                raise _refusal(f"a number beyond {_MAX_WHOLE}")
            if not isinstance(value, int | float):
                _require_small(_weight(value) * abs(times))


class _Rounds:
    """An iterable that pays for each item. It keeps its length where the source has one."""

    def __init__(self, items: Iterable[Any], environment: _Environment) -> None:
        self._items = items
        self._environment = environment

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._environment.budget.round()
            yield item


class ChatTemplate:
    """A compiled chat template.

    Parameters
    ----------
    source
        The template's text.
    variables
        Names every rendering sees, such as `bos_token`.

    Raises
    ------
    ModelFormatError
        The text is not a template, or asks for what the sandbox does not offer.
    """

    def __init__(self, source: str, variables: Mapping[str, Any]) -> None:
        self.source = source
        self._variables = dict(variables)
        self._environment = _Environment()
        self._lock = threading.Lock()
        self._template = self._compile()

    def _compile(self) -> jinja2.Template:
        if len(self.source) > _MAX_TEMPLATE:
            raise ModelFormatError(
                f"chat template: at most {_MAX_TEMPLATE} characters expected, "
                f"found {len(self.source)}"
            )
        try:
            tree = _Guard().visit(self._environment.parse(self.source))
            return self._environment.from_string(tree)
        except _COMPILE_ERRORS as error:
            raise ModelFormatError(f"chat template: {_describe(error)}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """Return the prompt text of a conversation.

        Raises
        ------
        InvalidArgument
            The template refuses the conversation, or spends more than its budget.
        """
        values = self._variables | {
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        with self._lock:
            self._environment.budget = _Budget()
            return self._guarded(lambda: "".join(self._template.generate(values)))

    def _guarded(self, rendering: Callable[[], str]) -> str:
        try:
            return rendering()
        except MedusaError:
            raise
        except Exception as error:
            raise InvalidArgument(f"chat template: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
