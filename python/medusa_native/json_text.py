"""JSON from files nobody vouches for."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError
        Whatever is wrong: malformed, not UTF-8, nested too deeply, a number of thousands of digits,
        or a key that an object holds twice, of which readers keep different ones.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r:.60} occurs twice in one object")
        found[key] = value
    return found
