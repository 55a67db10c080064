"""Checks of what callers pass; every message names the owner and the parameter."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from medusa_native.errors import InvalidArgument

T = TypeVar("T")
Kwargs = dict[str, Any]


def rename(owner: str, kwargs: Kwargs, aliases: Mapping[str, str]) -> Kwargs:
    """Replace aliases by the names they stand for; both at once are an error."""
    renamed: Kwargs = {}
    for name, value in kwargs.items():
        target = aliases.get(name, name)
        if target in renamed or (target != name and target in kwargs):
            raise InvalidArgument(f"{owner}: {name} and {target} are the same parameter; give one")
        renamed[target] = value
    return renamed


def checked_init(translate: Callable[[Kwargs], Kwargs]) -> Callable[[type[T]], type[T]]:
    """Let a dataclass take aliases, and refuse unknown names with InvalidArgument."""

    def decorate(cls: type[T]) -> type[T]:
        plain_init = cls.__init__
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]

        @functools.wraps(plain_init)
        def init(self: T, *args: Any, **kwargs: Any) -> None:
            translated = translate(kwargs)
            for name in translated:
                if name not in known:
                    raise InvalidArgument(
                        f"{cls.__name__}: {name} is unknown or not supported; "
                        f"known are {', '.join(known)}"
                    )
            plain_init(self, *args, **translated)

        setattr(cls, "__init__", init)  # noqa: B010
        return cls

    return decorate


def check_number(owner: str, name: str, value: Any, low: float, high: float, bounds: str) -> float:
    """Return a finite number within bounds, which are spelled out as "[low, high)"."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and abs(value) <= sys.float_info.max):  # NaN, or an int beyond every float
        raise InvalidArgument(f"{owner}: {name} must be a finite number, found {value!r}")
    excluded = (bounds[0] == "(" and value == low) or (bounds[-1] == ")" and value == high)
    if not low <= value <= high or excluded:
        raise InvalidArgument(f"{owner}: {name} must be in {bounds}, found {value!r}")
    return float(value)


def check_integer(owner: str, name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return an integer in [low, high]."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InvalidArgument(f"{owner}: {name} must be an integer, found {value!r}")
    if not low <= number <= high:
        raise InvalidArgument(f"{owner}: {name} must be in [{low}, {high}], found {number}")
    return number


def check_flag(owner: str, name: str, value: Any) -> bool:
    """Return True or False, and nothing that is merely like them."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{owner}: {name} must be True or False, found {value!r}")
    return value
