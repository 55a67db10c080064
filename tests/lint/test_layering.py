"""Folder order is include order, and each outside dependency has one home."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, cpp_files, relative

ORDER = ("base", "tensor", "backend", "model", "decode", "train", "bindings")
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each included name and whether it stands in quotes."""
    for quoted, angled in INCLUDE.findall(path.read_text()):
        yield (quoted or angled), bool(quoted)


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert folders <= set(ORDER)


@pytest.mark.parametrize("path", cpp_files("csrc"), ids=relative)
def test_a_file_includes_only_its_own_folder_and_those_before_it(path: Path) -> None:
    own = path.relative_to(ROOT / "csrc").parts[0]
    allowed = (*ORDER[: ORDER.index(own) + 1], "medusa")
    wrong = [
        name for name, quoted in includes(path) if quoted and name.split("/")[0] not in allowed
    ]
    assert not wrong, f"{relative(path)} may include {allowed}, includes {wrong}"


@pytest.mark.parametrize("path", cpp_files("csrc"), ids=relative)
def test_quoted_names_start_at_an_include_root(path: Path) -> None:
    missing = [
        name
        for name, quoted in includes(path)
        if quoted and not any((ROOT / root / name).exists() for root in ("csrc", "include"))
    ]
    assert not missing


@pytest.mark.parametrize("path", cpp_files("include"), ids=relative)
def test_public_headers_need_only_themselves_and_the_standard_library(path: Path) -> None:
    wrong = [
        name
        for name, quoted in includes(path)
        if not (name.startswith("medusa/") if quoted else re.fullmatch(r"[a-z_0-9]+", name))
    ]
    assert not wrong


@pytest.mark.parametrize("path", cpp_files("csrc/backend"), ids=relative)
def test_the_interface_does_not_know_its_back_ends(path: Path) -> None:
    if path.parent.name != "backend":
        return
    assert not [name for name, _ in includes(path) if re.match(r"backend/(cpu|cuda)/", name)]


def test_pybind11_is_known_in_bindings_only() -> None:
    assert {
        relative(path) for path in cpp_files("csrc", "include") if "pybind11" in path.read_text()
    } <= {relative(path) for path in cpp_files("csrc/bindings")}


@pytest.mark.parametrize(
    ("pattern", "home"),
    [
        (
            r'\bgetenv\b(?!\("MEDUSA_CUDA_(?:GRAPHS|KERNELS|LOOP|OVERLAP)"\))',
            "csrc/backend/cpu/isa.cc",
        ),
        (r"\bgetenv\(.MEDUSA_CUDA_GRAPHS", "csrc/backend/cuda/graph_cache.cc"),
        (r"\bgetenv\(.MEDUSA_CUDA_(?:KERNELS|LOOP|OVERLAP)", "csrc/backend/cuda/kernel_set.cc"),
        (
            r"\barch_prctl\b|SYS_arch_prctl|__get_cpuid|__cpuid\b|\bcpuid\.h\b",
            "csrc/backend/cpu/isa.cc",
        ),
        (r"defined\(MEDUSA_CUDA\)|#\s*ifn?def\s+MEDUSA_CUDA", None),
        (r"<<<", None),
    ],
)
def test_one_home_for(pattern: str, home: str | None) -> None:
    found = {
        relative(path)
        for path in cpp_files("csrc", "include")
        if re.search(pattern, path.read_text())
    }
    assert found <= {home}


def test_intrinsics_stay_in_the_cpu_back_end() -> None:
    found = [relative(path) for path in cpp_files("csrc") if "immintrin.h" in path.read_text()]
    assert all(name.startswith("csrc/backend/cpu/") for name in found)
