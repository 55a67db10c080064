"""docs/kernels.md tells what ptxas made of every kernel: registers, shared memory, spills.

The build keeps ptxas's report beside each object. `python tests/lint/test_kernel_table.py BUILD`
prints the table of a build.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/kernels.md"
REPORT = re.compile(
    r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.DOTALL,
)
TARGETS = ("sm_80", "sm_90a")
NONE = ("-", "-", "-")  # not compiled for it


def reports(build: Path) -> list[Path]:
    """Return what ptxas said of each kernel file of a build; none without CUDA."""
    everywhere = build.glob("**/medusa_*.dir/**/*.cu.o.ptxas")
    return sorted(path for path in everywhere if "/kernels/" in path.as_posix())


def demangled(symbol: str) -> str:
    """Name a kernel as its source does: ``linear_kernel<PlainWeights, 8>``."""
    command = ["c++filt", symbol]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name = re.sub(r"\(anonymous namespace\)::|medusa::(?:cuda::)?", "", text)
    name = re.sub(r"^\w+::|\([^()]*\)$", "", name.strip().removeprefix("void "))
    return re.sub(r"\((\w+)\)(\d+)", r"\1 \2", name)


def table(build: Path) -> list[str]:
    """Return the rows of the table, a kernel each, sorted."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in reports(build):
        for symbol, target, *numbers in REPORT.findall(path.read_text()):
            stack, stores, loads, registers, shared = numbers
            kernel = found.setdefault(demangled(symbol), {})
            kernel[target] = (registers, shared or "0", str(int(stack) + int(stores) + int(loads)))
    return [
        f"| `{name}` | " + " | ".join(" | ".join(of.get(target, NONE)) for target in TARGETS) + " |"
        for name, of in sorted(found.items())
    ]


def compiler(build: Path) -> str:
    """Return the version of nvcc that made a build: ``13.0``."""
    made = next(build.glob("CMakeFiles/*/CMakeCUDACompiler.cmake"))
    match = re.search(r'CMAKE_CUDA_COMPILER_VERSION "(\d+\.\d+)', made.read_text())
    assert match
    return match.group(1)


def documented() -> list[str]:
    """Return the rows of the table in the document."""
    return [line for line in DOCUMENT.read_text().splitlines() if re.match(r"\| `\w+_kernel", line)]


@pytest.fixture
def cuda_build(build_dir: Path) -> Path:
    if not reports(build_dir):
        pytest.skip("this build has no CUDA back end")
    return build_dir


def test_no_kernel_spills(cuda_build: Path) -> None:
    rows = table(cuda_build)
    assert rows
    assert not [row for row in rows if row.split("|")[4].strip() not in ("0", "-")]
    assert not [row for row in rows if row.split("|")[7].strip() != "0"]


def test_no_kernel_is_warned_of(cuda_build: Path) -> None:
    said = {path.name: path.read_text() for path in reports(cuda_build)}
    assert not {name: text for name, text in said.items() if "warning" in text.lower()}


def test_the_table_is_that_of_the_build(cuda_build: Path) -> None:
    version = compiler(cuda_build)
    if f"nvcc {version}" not in DOCUMENT.read_text():
        pytest.skip(f"the table is another compiler's than nvcc {version}")
    assert documented() == table(cuda_build)


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
