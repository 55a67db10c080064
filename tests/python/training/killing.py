"""Runs training commands in a process of their own, to kill it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(function: str, *args: Any, **kwargs: Any) -> subprocess.Popen[str]:
    """Call `medusa_native.training.<function>` in a new process."""
    code = f"from medusa_native import training\ntraining.{function}(*{args!r}, **{kwargs!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_on_a_full_disk(limit: int, function: str, *args: Any, **kwargs: Any) -> str:
    """Call it where no file may grow beyond `limit` bytes; return what it printed as it failed."""
    code = (
        "import resource\nfrom medusa_native import training\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"training.{function}(*{args!r}, **{kwargs!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    return done.stdout


def kill_when(
    process: subprocess.Popen[str],
    reached: Callable[[], bool],
    sign: signal.Signals = signal.SIGKILL,
) -> bool:
    """Send `sign` once `reached()`; False if the process ended before."""
    while not reached():
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0]
            return False
        time.sleep(0.002)
    process.send_signal(sign)
    process.communicate()
    return True


def size(path: Path) -> int:
    """Bytes of a file that may not be there yet."""
    return path.stat().st_size if path.exists() else 0
