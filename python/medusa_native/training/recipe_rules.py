"""What a value of a recipe may be, and how that is said."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Rule:
    """A test of a value, and what it expects, in words."""

    accepts: Callable[[Any], bool]
    expected: str


def whole(low: int, high: int) -> Rule:
    """Return the rule of whole numbers in [low, high]."""
    return Rule(
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number in [{low}, {high}]",
    )


def number(low: float, high: float, bounds: str = "[]") -> Rule:
    """Return the rule of finite numbers between bounds, as in ``(]``: the lower one excluded."""

    def accepts(value: Any) -> bool:
        if type(value) not in (int, float) or not low <= value <= high:  # NaN fails every bound
            return False
        return not (bounds[0] == "(" and value == low) and not (bounds[1] == ")" and value == high)

    return Rule(accepts, f"a number in {bounds[0]}{low:g}, {high:g}{bounds[1]}")


def flag() -> Rule:
    """Return the rule of truth values."""
    return Rule(lambda value: isinstance(value, bool), "true or false")


def text() -> Rule:
    """Return the rule of texts."""
    return Rule(lambda value: isinstance(value, str), "a text")


def one_of(*choices: str) -> Rule:
    """Return the rule of a text out of a few."""
    return Rule(
        lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"
    )


def names(*choices: str) -> Rule:
    """Return the rule of lists of distinct texts out of a few."""

    def accepts(value: Any) -> bool:
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return is_list and bool(value) and len({*value}) == len(value) and {*value} <= {*choices}

    return Rule(accepts, f"a list of distinct names out of {', '.join(choices)}")


def tables() -> Rule:
    """Return the rule of lists of tables, one at least."""
    return Rule(
        lambda value: (
            isinstance(value, list) and bool(value) and all(isinstance(i, dict) for i in value)
        ),
        "at least one table",
    )


def read_toml(path: Path) -> dict[str, Any]:
    """Read a small file; raise InvalidArgument where it cannot be."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise InvalidArgument(f"{path}: must have at most {_MAX_BYTES} bytes, found more")
        values: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
        return values
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{path}: cannot be read as TOML: {error}") from error
    except RecursionError:
        raise InvalidArgument(f"{path}: cannot be read as TOML: nested too deeply") from None
