"""Typed access to untrusted key/value data: config.json and GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medusa_native.errors import MedusaError, ModelFormatError
from medusa_native.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INT_MAX = 2**31 - 1
_FLOAT_MAX = 1e30  # fits float32; also excludes infinity and NaN
_MAX_JSON_BYTES = 256 * 1024 * 1024


class Fields:
    """A mapping whose getters check type and range and name the file and key when they fail."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def fail(self, key: str, expected: str) -> ModelFormatError:
        """Build the error for a missing or unsuitable value."""
        found = repr(self.values[key])[:80] if key in self.values else "nothing"
        return ModelFormatError(f"{self.path}: '{key}' must be {expected}, found {found}")

    def get_int(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """Get a whole number in [low, 2**31)."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _INT_MAX:
            raise self.fail(key, f"a whole number of at least {low}")
        return value

    def get_float(self, key: str, default: float | None = None) -> float:
        """Get a finite number greater than zero."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, "a number")
        if not 0 < value < _FLOAT_MAX:
            raise self.fail(key, "a positive finite number")
        return float(value)

    def get_bool(self, key: str, default: bool) -> bool:
        """Get a truth value."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def get_str(self, key: str, default: str | None = None) -> str:
        """Get a text."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.fail(key, "a text")
        return value

    def get_list(self, key: str) -> list[Any]:
        """Get a list; empty when the key is missing."""
        value = self.values.get(key)
        value = [] if value is None else value
        if not isinstance(value, list):
            raise self.fail(key, "a list")
        return value

    def get_fields(self, key: str) -> Fields:
        """Get a nested mapping; empty when the key is missing."""
        value = self.values.get(key)
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise self.fail(key, "an object")
        return Fields(self.path, value)


def read_json(path: Path) -> Fields:
    """Read a JSON object.

    Raises
    ------
    ModelFormatError
        The file is missing, too large, not UTF-8, not JSON, or not an object.
    """
    with reading(path, "JSON"):
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelFormatError(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
        value = parse_json(path.read_bytes())
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path}: must hold a JSON object, found {type(value).__name__}")
    return Fields(path, value)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a third-party reader raises on bad input into a ModelFormatError.

    Panics of Rust extensions derive from BaseException, so that is what is caught.
    """
    try:
        yield
    except (MedusaError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise ModelFormatError(f"{path}: no such file (needed for {what})") from error
    except BaseException as error:
        detail = " ".join(str(error).split())[:300]
        raise ModelFormatError(
            f"{path}: cannot be read as {what}: {type(error).__name__}: {detail}"
        ) from error
