"""A worker's side of the protocol: one JSON object a line in, one out.

`{"do": name, ...}` calls the method of that name; its dict, or `{"error": text}`, is the reply.
Nothing but the standard library, for it runs in every peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import traceback
from typing import Any

Reply = dict[str, Any]


def serve(worker: object) -> None:
    """Answer until standard input ends; what libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(worker, **request)), file=replies, flush=True)


def _answer(worker: object, do: str, **arguments: Any) -> Reply:
    try:
        return getattr(worker, do)(**arguments)
    except Exception as error:  # noqa: BLE001 (of any library)
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {textwrap.shorten(lines[-1], 200)}"}


def decoded(tokens: list[int], first: float, total: float, first_count: int = 1) -> Reply:
    """Return an answer: its `first_count` first tokens came after `first` of `total` seconds."""
    return {"tokens": tokens, "first": first, "rest": total - first, "first_count": first_count}
