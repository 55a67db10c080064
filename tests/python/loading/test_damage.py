"""Damaged files either load or raise MedusaError: never another exception, never a hang."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from medusa_native.errors import MedusaError
from medusa_native.loading import load_checkpoint, load_heads

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES = 200


def truncations(size: int) -> list[int]:
    return [random.Random(1).randrange(size) for _ in range(PLACES)]


def survives(load: Callable[[], object]) -> bool:
    try:
        load()
    except MedusaError:
        return False
    return True


def flipped(content: bytes, places: int, limit: int, seed: int) -> bytes:
    damaged = bytearray(content)
    generator = random.Random(seed)
    for _ in range(places):
        damaged[generator.randrange(limit)] ^= 1 << generator.randrange(8)
    return bytes(damaged)


def test_truncated_gguf(gguf: Callable[..., Path]) -> None:
    path = gguf()
    content = path.read_bytes()
    for size in truncations(len(content)):
        path.write_bytes(content[:size])
        assert not survives(lambda: load_checkpoint(path))


@pytest.mark.parametrize("bits", [1, 8])
def test_flipped_gguf(gguf: Callable[..., Path], bits: int) -> None:
    path = gguf()
    content = path.read_bytes()
    header = content.index(b"blk.1.ffn_down.weight") + 64
    for seed in range(PLACES):
        path.write_bytes(flipped(content, bits, header, seed))
        survives(lambda: load_checkpoint(path))


@pytest.fixture
def heads_file(tmp_path: Path) -> Path:
    path = tmp_path / "medusa_lm_head.safetensors"
    zeros = np.zeros((64, 64), np.float32)
    save_file({f"{h}.0.linear.weight": zeros for h in range(3)}, path)
    return path


def test_truncated_safetensors(heads_file: Path) -> None:
    content = heads_file.read_bytes()
    for size in truncations(len(content)):
        heads_file.write_bytes(content[:size])
        assert not survives(lambda: load_heads(heads_file, 64, 100))


@pytest.mark.parametrize("bits", [1, 8])
def test_flipped_safetensors(heads_file: Path, bits: int) -> None:
    content = heads_file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for seed in range(PLACES):
        heads_file.write_bytes(flipped(content, bits, header, seed))
        survives(lambda: load_heads(heads_file, 64, 100))


def test_damaged_demo_model(demo_path: Path, tmp_path: Path) -> None:
    """Flips in the real vocabulary and merges; the weights are left out of the copy's tail."""
    with demo_path.open("rb") as file:
        head = file.read(3 << 20)
    path = tmp_path / "demo.gguf"
    with path.open("wb") as file:
        file.truncate(demo_path.stat().st_size)
    for seed in range(10):
        with path.open("r+b") as file:
            file.write(flipped(head, 3, 1_700_000, seed))
        survives(lambda: load_checkpoint(path))
