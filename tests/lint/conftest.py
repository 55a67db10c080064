"""What the lint tests share: where things are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def files(*patterns: str, under: tuple[str, ...]) -> list[Path]:
    """Return the project's own files that match, sorted."""
    found = {
        path for folder in under for pattern in patterns for path in (ROOT / folder).rglob(pattern)
    }
    return sorted(found)


def cpp_files(*under: str) -> list[Path]:
    """Return C++ sources below these folders; all of them without arguments."""
    names = ("*.h", "*.cc", "*.inc", "*.cuh", "*.cu")
    return files(*names, under=under or ("include", "csrc", "tests", "benchmarks"))


def python_files(*under: str) -> list[Path]:
    """Return Python sources below these folders; all of them without arguments."""
    return files("*.py", "*.pyi", under=under or ("python", "tests", "benchmarks"))


def relative(path: Path) -> str:
    """Name a file as a reader of the repository would."""
    return path.relative_to(ROOT).as_posix()


def run(*command: str) -> None:
    """Run a tool at the root; its output is the failure's text."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{command[0]} {command[1]}\n{done.stdout}{done.stderr}", pytrace=False)


def is_plain(build: Path) -> bool:
    """Say whether a build is without sanitizers, which add symbols of their own."""
    return "MEDUSA_SANITIZE:STRING=\n" in (build / "CMakeCache.txt").read_text()


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Return MEDUSA_BUILD_DIR or the newest plain build; without one there is nothing to check."""
    if named := os.environ.get("MEDUSA_BUILD_DIR"):
        return Path(named)
    libraries = [path for path in ROOT.glob("build/*/libmedusa_core.a") if is_plain(path.parent)]
    if not libraries:
        pytest.fail(
            "no build found: run `make lint`, or name one in MEDUSA_BUILD_DIR", pytrace=False
        )
    return max(libraries, key=lambda path: path.stat().st_mtime).parent
