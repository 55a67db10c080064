"""A worker seen from outside: a process that runs only while it is asked something."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent


class WorkerError(RuntimeError):
    """A worker could not do what it was asked, in one line."""


class Worker:
    """`module` of peers.workers under an interpreter; what it prints is kept in `log`.

    Between requests the whole process group is stopped, so that idle thread pools take no time from
    whoever is being measured.
    """

    def __init__(
        self, python: Path | str, module: str, log: Path, environment: Mapping[str, str]
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log, self._module = log, module
        command = [str(python), "-m", f"peers.workers.{module}"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=BENCHMARKS, env=dict(environment), start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output,
            )  # fmt: skip

    def ask(self, do: str, seconds: float = 900, **arguments: Any) -> dict[str, Any]:
        """Let the worker run until it has replied; raise WorkerError where it could not."""
        self._signal(signal.SIGCONT)
        self._send(json.dumps({"do": do, **arguments}))
        reply = json.loads(self._line(do, seconds))
        self._signal(signal.SIGSTOP)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _send(self, text: str) -> None:
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _line(self, do: str, seconds: float) -> bytes:
        """Read one reply; the protocol has one request under way, so nothing else is buffered."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not ready:
            raise WorkerError(f"{do} must take less than {seconds:g} s, found no reply")
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        return line

    def _death(self) -> WorkerError:
        status = self._process.wait()
        return WorkerError(f"{last_line(self._log)} (exit status {status})")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], 200) if lines else "nothing was printed"
