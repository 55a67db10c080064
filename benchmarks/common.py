"""What benchmarks share: prompts, machine and commit, tables, results."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medusa_native.cli.demo import PROMPTS
from medusa_native.demo_model import demo_model
from medusa_native.tuning.store import processor_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"


def read_prompts(path: str | None, limit: int | None) -> list[str]:
    """Return `limit` prompts, evenly spaced over a JSON Lines file; without one, the demo's."""
    if path is None:
        return list(PROMPTS[:limit])
    with Path(path).open(encoding="utf-8") as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    count = min(limit or len(prompts), len(prompts))
    return [prompts[i * len(prompts) // count] for i in range(count)]


def resolve_model(model: str) -> str:
    return str(demo_model()) if model == "demo" else model


def machine() -> dict[str, Any]:
    """Describe the processor and what of it this process may use."""
    return {
        "cpu": processor_name(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def commit() -> str:
    """Return the commit, with a plus where the tree differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def public(setting: Any) -> Any:
    """Return a setting as a result may show it: of a file or folder, the name alone."""
    if isinstance(setting, str) and Path(setting).exists():
        return Path(setting).name
    return setting


def run_record(settings: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with the machine and commit they were measured on."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "settings": {key: public(value) for key, value in settings.items()},
        "figures": dict(figures),
    }


def save(name: str, settings: Mapping[str, Any], figures: Mapping[str, Any]) -> Path:
    """Write the result of one run."""
    return _write(name, {"benchmark": name, **run_record(settings, figures)})


def add(name: str, settings: Mapping[str, Any], figures: Mapping[str, Any]) -> Path:
    """Write a run beside earlier ones of other settings or another device."""
    path = RESULTS / f"{name}.json"
    run = run_record(settings, figures)
    with _alone():
        earlier = json.loads(path.read_text())["runs"] if path.exists() else []
        kept = [other for other in earlier if not _is_repeated(other, run)]
        return _write(name, {"benchmark": name, "runs": [*kept, run]})


@contextmanager
def _alone() -> Iterator[None]:
    """Of several benchmarks that end at the same time, each keeps what the others add."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _is_repeated(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same_device = one["figures"]["device"] == other["figures"]["device"]
    return same_device and one["settings"] == other["settings"]


def _write(name: str, result: Mapping[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row))
    Console().print(table)
