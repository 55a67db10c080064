"""What benchmarks share: prompts, machine and commit, tables, results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medusa_native.cli.demo import PROMPTS
from medusa_native.demo_model import demo_model

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"


def read_prompts(path: str | None, limit: int | None) -> list[str]:
    """Return the `prompt` of every line of a JSON Lines file; without one, the demo's prompts."""
    if path is None:
        return list(PROMPTS[:limit])
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line)["prompt"] for line in lines][:limit]


def resolve_model(model: str) -> str:
    return str(demo_model()) if model == "demo" else model


def machine() -> dict[str, Any]:
    """Describe the processor and what of it this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
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


def save(name: str, settings: Mapping[str, Any], figures: Mapping[str, Any]) -> Path:
    """Write a result with the machine and commit it was measured on."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        "benchmark": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "settings": {key: public(value) for key, value in settings.items()},
        "figures": dict(figures),
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row))
    Console().print(table)
