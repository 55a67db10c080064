from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_files import GgufRecipe, write_gguf

import medusa_native
import medusa_native.errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Loading hostile files must end: minutes of this process's own time are never needed."""

    def give_up(_signal: int, _frame: object) -> None:
        pytest.fail("loading hangs")

    previous = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, 240)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, previous)


@pytest.fixture
def gguf(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny GGUF model; keyword arguments change the recipe."""

    def write(**changes: object) -> Path:
        return write_gguf(tmp_path / "tiny.gguf", GgufRecipe(**changes))  # type: ignore[arg-type]

    return write


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The demo model: MEDUSA_DEMO_MODEL, else what the package fetches."""
    path = os.environ.get("MEDUSA_DEMO_MODEL")
    if path is None:
        demo_model = getattr(medusa_native, "demo_model", None)
        if demo_model is None:
            pytest.skip("demo_model() is not part of this build")
        try:
            path = demo_model()
        except medusa_native.errors.MedusaError as error:
            pytest.skip(f"the demo model cannot be fetched: {error}")
    return Path(path)
