"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_SECONDS = 30.0


class Meter:
    """Shows how far a piece of work has come, on standard error.

    Parameters
    ----------
    title
        What is being done.
    total
        Units of work, of which `done` are done already.
    shown
        None: only where standard error is a terminal.
    """

    def __init__(self, title: str, total: int, done: int = 0, *, shown: bool | None = None) -> None:
        terminal = sys.stderr.isatty()
        self._lines = shown is True and not terminal
        self._title, self._total = title, total
        self._first = self.done = done
        self._start = self._last = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=Console(stderr=True),
            disable=not terminal or shown is False,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Meter:  # noqa: PYI034 - typing.Self needs Python 3.11
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._lines:
            self._print("")

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` units are done; `note` stands behind the count."""
        self.done = done
        self._bar.update(self._task, completed=done, note=note)
        if self._lines and time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            self._print(note)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._bar.disable:
            self._bar.console.print(text, highlight=False)
        elif self._lines:
            print(text, file=sys.stderr, flush=True)

    def _print(self, note: str) -> None:
        seconds = time.monotonic() - self._start
        rate = (self.done - self._first) / seconds if seconds > 0 else 0.0
        left = f"{(self._total - self.done) / rate:.0f} s left" if rate > 0 else ""
        parts = [f"{self._title}: {self.done}/{self._total}", note, f"{seconds:.0f} s", left]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)
