"""What commands print, and how they fail: one clear line, never a traceback."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from medusa_native.errors import MedusaError
from medusa_native.outputs import Metrics, Piece

P = ParamSpec("P")

DRAFTED = "green"  # tokens that heads guessed: they cost no step of their own
INTERRUPTED = 130  # as shells report SIGINT

console = Console(highlight=False)
messages = Console(stderr=True, highlight=False)


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command end with one line and exit code 2 instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads on. The null device takes what Python flushes while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            messages.print("\ninterrupted", style="dim")
            raise typer.Exit(INTERRUPTED) from None
        except (MedusaError, OSError) as error:
            messages.print(Text(f"medusa-native: {error}", style="red"), soft_wrap=True)
            raise typer.Exit(2) from None

    return wrapped


def write(pieces: list[Piece]) -> None:
    """Print streamed text at once; colour only on a terminal, elsewhere the bytes as they are."""
    for piece in pieces:
        if console.is_terminal:
            style = DRAFTED if piece.drafted else ""
            console.print(Text(piece.text, style=style), end="", soft_wrap=True)
        else:
            sys.stdout.write(piece.text)
    sys.stdout.flush()


def write_json(value: dict[str, Any]) -> None:
    """Print one object on a line of its own."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def report(metrics: Metrics) -> None:
    """Say on standard error how fast it went."""
    text = f"{metrics.num_generated_tokens} tokens, {metrics.tokens_per_second:.1f} tokens/s"
    if metrics.num_drafts:
        text += f", {metrics.mean_acceptance_length:.2f} tokens a step"
    messages.print(text, style="dim")
