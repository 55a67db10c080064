"""ISA objects are closed worlds.

An object compiled with -mavx512f that defines a weak symbol (an inline or template function of the
standard library) may lend it to the whole program: the linker keeps one copy, whichever comes first,
and a processor without AVX-512 then dies in code that never asked for it.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

X86 = platform.machine() in ("x86_64", "AMD64")
ISAS = ("generic", "avx2", "avx512", "avx512_bf16", "amx") if X86 else ("generic",)


def object_files(build_dir: Path, isa: str) -> list[Path]:
    """Return the objects compiled for one instruction set, by their names."""
    folder = build_dir / "CMakeFiles/medusa_core.dir/csrc/backend/cpu"
    found = sorted(folder.glob(f"*_{isa}.cc.o"))
    assert folder / f"kernels_{isa}.cc.o" in found
    return found


def symbols(build_dir: Path, isa: str) -> list[tuple[str, str]]:
    """Return (type letter, demangled name) of what the objects of one instruction set define."""
    found = []
    for path in object_files(build_dir, isa):
        command = ["nm", "--demangle", "--defined-only", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = (line.split(maxsplit=2) for line in listing.splitlines())
        found += [(row[1], row[2]) for row in rows]
    return found


@pytest.mark.parametrize("isa", ISAS)
def test_weak_symbols_stay_in_the_namespace(build_dir: Path, isa: str) -> None:
    shared = [name for kind, name in symbols(build_dir, isa) if kind in "WwVvu"]
    assert not [name for name in shared if f"medusa::cpu::{isa}::" not in name]


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_runs_before_main(build_dir: Path, isa: str) -> None:
    """A static initialiser would run the instruction set before anybody asked whether it exists."""
    names = [name for _, name in symbols(build_dir, isa)]
    assert not [
        name for name in names if "_GLOBAL__sub_I" in name or "static_initialization" in name
    ]


@pytest.mark.parametrize("isa", ISAS)
def test_global_symbols_are_the_table_alone(build_dir: Path, isa: str) -> None:
    strong = [name for kind, name in symbols(build_dir, isa) if kind in "TDRB"]
    assert not [name for name in strong if "medusa::cpu::" not in name]
