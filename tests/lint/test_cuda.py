"""Kernels speak the vocabulary of csrc/backend/cuda/device, which the emulator speaks too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, cpp_files, relative
from test_layering import includes

CUDA = "csrc/backend/cuda"
TWINS = ROOT / "tests/cuda_emulation/twin/backend/cuda"
DEVICE = cpp_files(f"{CUDA}/device")
KERNELS = cpp_files(f"{CUDA}/kernels")
# Free of the host: what device code may include beside the vocabulary.
HELPERS = {
    "backend/cuda/advance.h",
    "backend/cuda/backbone_kernels.h",
    "backend/cuda/kernels.h",
    "backend/cuda/launch.h",
    "backend/cuda/packing.h",
    "backend/cuda/train_kernels.h",
    "backend/typical_rule.h",
    "base/philox.h",
}
FOREIGN = re.compile(
    r"\basm\b|__CUDA_ARCH__|__CUDACC__|<<<|cooperative_groups|\bcub::|#\s*ifn?def|"
    r"\b__(?!global__|device__|host__|forceinline__|launch_bounds__)\w+"
)


def calls(path: Path) -> set[str]:
    """Return the verbs a header of the vocabulary offers: words followed by a bracket."""
    text = re.sub(r"//[^\n]*|asm[^;]*;", "", path.read_text())
    found = re.findall(
        r"(?:__forceinline__|^inline|^template <[^>]*>\n\w+) ?[\w ]*?\b(\w+)\(", text, re.MULTILINE
    )
    return set(found) | set(re.findall(r"#define (MEDUSA_\w+)", text))


@pytest.mark.parametrize("path", KERNELS, ids=relative)
def test_kernels_include_the_vocabulary_alone(path: Path) -> None:
    wrong = [
        name
        for name, _ in includes(path)
        if name not in HELPERS
        and not name.startswith(("backend/cuda/device/", "backend/cuda/kernels/"))
    ]
    assert not wrong


@pytest.mark.parametrize("path", KERNELS, ids=relative)
def test_kernels_use_no_other_words_of_cuda(path: Path) -> None:
    assert not FOREIGN.findall(path.read_text())


@pytest.mark.parametrize("path", DEVICE, ids=relative)
def test_the_vocabulary_includes_only_itself(path: Path) -> None:
    allowed = ("backend/cuda/device/", "tensor/elements.h")
    assert not [name for name, quoted in includes(path) if quoted and not name.startswith(allowed)]


@pytest.mark.parametrize("twin", sorted(TWINS.rglob("*.cuh")), ids=relative)
def test_every_verb_has_its_twin(twin: Path) -> None:
    assert calls(ROOT / CUDA / twin.relative_to(TWINS)) <= calls(twin)


def test_what_only_the_device_knows_is_twinned() -> None:
    """A header that spells CUDA's own words cannot be compiled for the host."""
    lacking = [
        relative(path)
        for path in DEVICE
        if FOREIGN.search(path.read_text()) and not (TWINS / "device" / path.name).exists()
    ]
    assert not lacking
