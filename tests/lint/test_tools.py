"""Formatting and static checks, each by the tool that knows."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import ROOT, cpp_files, run

TOOLS = Path(sys.executable).parent


def test_clang_format() -> None:
    run(str(TOOLS / "clang-format"), "--dry-run", "-Werror", *map(str, cpp_files()))


def test_ruff_format() -> None:
    run(str(TOOLS / "ruff"), "format", "--check", "--diff", "--quiet", str(ROOT))


def test_ruff_check() -> None:
    run(str(TOOLS / "ruff"), "check", "--quiet", str(ROOT))


def test_mypy() -> None:
    run(sys.executable, "-m", "mypy")
