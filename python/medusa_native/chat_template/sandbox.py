"""A Jinja environment for templates written by strangers.

Jinja's sandbox keeps a template from reaching Python. On top of it a budget bounds loop rounds,
seconds, the size of every value and of the output, so that rendering always ends: loops, literals,
concatenations and printing are rerouted in the syntax tree, and only operators, filters and methods
whose results are bounded by their inputs, or checked beforehand, are there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from medusa_native.chat_template.budget import (
    FILTERS,
    METHODS,
    Budget,
    bounded,
    raise_exception,
    require_product,
    require_sum,
    strftime_now,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN_METHODS = _words(
    "capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper join "
    "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper"
)
_PLAIN_FILTERS = _words(
    "abs capitalize count d default dictsort e escape first float forceescape groupby int items "
    "last length list lower map max min reject rejectattr reverse safe select selectattr sort "
    "string title unique upper wordcount"
)


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


class _Generation(Extension):
    """Knows `{% generation %}`, by which templates mark answers for training; it prints its body."""

    tags = {"generation"}  # noqa: RUF012 - the base declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class SandboxedEnvironment(ImmutableSandboxedEnvironment):
    """The environment chat templates expect, within a budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        self.budget = Budget()
        stock = {name: self._checked(self.filters[name]) for name in _PLAIN_FILTERS}
        self.filters = stock | FILTERS | {"_rounds": self._pay_rounds}
        self.filters["_output"] = self._pay_output
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}

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
            require_product(left, right)
        elif operator == "+":
            require_sum(left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow the methods of texts that are bounded; otherwise as in the base."""
        if isinstance(obj, str | bytes) and attr not in _PLAIN_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` to `is_safe_attribute`, which refuses it."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, macro or method within the budget."""
        self.budget.spend_round()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in METHODS:
            return METHODS[name](obj, owner, *args)
        return self._bounded_result(super().call(context, obj, *args, **kwargs))

    def _bounded_result(self, value: Any) -> Any:
        if isinstance(value, Iterator):
            return self.budget.stream(value)
        return value if isinstance(value, Namespace) else bounded(value)

    def _checked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a stock filter so that its result is bounded; its `pass_context` mark is kept."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self._bounded_result(function(*args, **kwargs))

        wrapper.__dict__.update(getattr(function, "__dict__", {}))
        return wrapper


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
