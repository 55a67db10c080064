"""House rules that a reader of one file would not see broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, cpp_files, python_files, relative

MAX_LINES = 300
# A file may be longer once, for a reason that holds.
LONGER = {
    "csrc/backend/cpu/attention.inc": "one kernel: its three passes share register blocks",
    "python/medusa_native/_core.pyi": "one stub mirrors one module",
    "tests/cpp/engine_test.cc": "what every engine must hold, on one tiny model and its twins",
}

SOURCES = [*cpp_files(), *python_files()]
TEXTS = [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_fits_its_budget(path: Path) -> None:
    if relative(path) not in LONGER:
        assert len(path.read_text().splitlines()) <= MAX_LINES


def test_no_exception_outlives_its_reason() -> None:
    short = [name for name in LONGER if len((ROOT / name).read_text().splitlines()) <= MAX_LINES]
    assert not short


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_nothing_is_left_for_later(path: Path) -> None:
    if path != Path(__file__).resolve():
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_no_path_of_one_machine(path: Path) -> None:
    if path != Path(__file__).resolve():
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt)/", path.read_text())


@pytest.mark.parametrize("path", cpp_files(), ids=relative)
def test_headers_are_guarded_by_pragma_once(path: Path) -> None:
    if path.suffix in (".h", ".cuh"):
        first = path.read_text().splitlines()[0]
        assert first == "#pragma once" or first.startswith("// No include guard")


def listing(path: Path) -> str:
    """Return the nearest CMakeLists.txt above a source."""
    folder = next(folder for folder in path.parents if (folder / "CMakeLists.txt").exists())
    return (folder / "CMakeLists.txt").read_text()


def test_sources_are_listed_where_they_lie() -> None:
    """CMake lists sources explicitly; a file nobody lists is dead."""
    unlisted = [
        relative(path)
        for path in cpp_files("csrc", "tests/cpp", "tests/cuda_emulation")
        if path.suffix in (".cc", ".cu") and path.name not in listing(path)
    ]
    assert not unlisted
