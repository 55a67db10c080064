"""Damaged files raise MedusaError or load, and what loads decodes: no other exception, no hang.

Nothing in GGUF or safetensors sums up the weights, so a flipped weight that stays finite is another
weight, and the model another model.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.numpy import load_file
from tiny_model import save_heads, save_model

from medusa_native import Decoder, SamplingParams
from medusa_native.errors import MedusaError
from medusa_native.loading import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES = 200
# Limits that hold whatever length a damaged file claims.
LIMITS = {"num_threads": 1, "max_num_seqs": 1, "kv_cache_memory": 1 << 20}


def decodes(model: Path, heads: Path | None = None) -> bool:
    """Say whether a model answers; False where it is refused as it should be."""
    try:
        decoder = Decoder(model, heads, **LIMITS)  # type: ignore[arg-type]
        params = SamplingParams(max_tokens=4, temperature=1.0, ignore_eos=True)
        (output,) = decoder.generate([1, 2, 3], params)
    except MedusaError:
        return False
    vocab_size = decoder.info()["config"]["vocab_size"]
    assert all(0 <= token < vocab_size for token in output.outputs[0].token_ids)
    return True


def truncated(content: bytes) -> list[bytes]:
    generator = random.Random(1)
    return [content[: generator.randrange(len(content))] for _ in range(PLACES)]


def flipped(content: bytes, bits: int, begin: int, end: int, seed: int) -> bytes:
    damaged = bytearray(content)
    generator = random.Random(seed)
    for _ in range(bits):
        damaged[generator.randrange(begin, end)] ^= 1 << generator.randrange(8)
    return bytes(damaged)


def none_decodes(path: Path, contents: list[bytes], decode: Callable[[], bool]) -> None:
    assert decode()
    for content in contents:
        path.write_bytes(content)
        assert not decode()


def count_decoded(path: Path, contents: list[bytes], decode: Callable[[], bool]) -> int:
    assert decode()
    decoded = 0
    for content in contents:
        path.write_bytes(content)
        decoded += decode()
    return decoded


# GGUF


def gguf_header(content: bytes) -> int:
    """Bytes before the tensors, up to a few of padding."""
    return content.index(b"blk.1.ffn_down.weight") + 64


def test_truncated_gguf(gguf: Callable[..., Path]) -> None:
    path = gguf()
    none_decodes(path, truncated(path.read_bytes()), lambda: decodes(path))


@pytest.mark.parametrize("bits", [1, 8])
def test_flips_in_a_gguf_header(gguf: Callable[..., Path], bits: int) -> None:
    path = gguf()
    content = path.read_bytes()
    end = gguf_header(content)
    damaged = [flipped(content, bits, 0, end, seed) for seed in range(PLACES)]
    count_decoded(path, damaged, lambda: decodes(path))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_flips_in_gguf_weights(gguf: Callable[..., Path], dtype: str) -> None:
    """Many flips: some make NaN or infinity, of which the packer must find every one."""
    path = gguf(dtype=dtype)
    content = path.read_bytes()
    begin = gguf_header(content)
    damaged = [flipped(content, 8, begin, len(content), seed) for seed in range(PLACES // 4)]
    count_decoded(path, damaged, lambda: decodes(path))


# Hugging Face folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def safetensors_header(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def test_truncated_safetensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    none_decodes(path, truncated(path.read_bytes()), lambda: decodes(folder))


@pytest.mark.parametrize("bits", [1, 8])
def test_flips_in_a_safetensors_header(folder: Path, bits: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = safetensors_header(content)
    damaged = [flipped(content, bits, 0, end, seed) for seed in range(PLACES)]
    count_decoded(path, damaged, lambda: decodes(folder))


def test_flips_in_safetensors_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    begin = safetensors_header(content)
    damaged = [flipped(content, 1, begin, len(content), seed) for seed in range(PLACES)]
    decoded = count_decoded(path, damaged, lambda: decodes(folder))
    assert decoded > 0


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_damaged_json(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    none_decodes(path, truncated(content.rstrip()), lambda: decodes(folder))
    path.write_bytes(content)
    damaged = [flipped(content, 1, 0, len(content), seed) for seed in range(PLACES)]
    count_decoded(path, damaged, lambda: decodes(folder))


# Heads


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_heads(model: Path, tmp_path: Path, version: int) -> None:
    heads = save_heads(tmp_path, version=version)
    path = heads / "medusa_lm_head.safetensors"
    content = path.read_bytes()
    none_decodes(path, truncated(content), lambda: decodes(model, heads))
    path.write_bytes(content)
    end = safetensors_header(content)
    damaged = [flipped(content, 1, 0, end, seed) for seed in range(PLACES)]
    damaged += [flipped(content, 8, end, len(content), seed) for seed in range(PLACES)]
    count_decoded(path, damaged, lambda: decodes(model, heads))


def test_damaged_pickled_heads(model: Path, tmp_path: Path) -> None:
    tensors = load_file(save_heads(tmp_path) / "medusa_lm_head.safetensors")
    (tmp_path / "medusa_lm_head.safetensors").unlink()
    path = tmp_path / "medusa_lm_head.pt"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, path)
    content = path.read_bytes()
    none_decodes(path, truncated(content), lambda: decodes(model, tmp_path))
    path.write_bytes(content)
    damaged = [flipped(content, 8, 0, len(content), seed) for seed in range(PLACES)]
    count_decoded(path, damaged, lambda: decodes(model, tmp_path))


# The real thing


def test_damaged_demo_model(demo_path: Path, tmp_path: Path) -> None:
    """Flips in the real vocabulary and merges; the weights are left out of the copy's tail."""
    with demo_path.open("rb") as file:
        head = file.read(3 << 20)
    path = tmp_path / "demo.gguf"
    with path.open("wb") as file:
        file.truncate(demo_path.stat().st_size)
    for seed in range(10):
        with path.open("r+b") as file:
            file.write(flipped(head, 3, 0, 1_700_000, seed))
        try:
            load_checkpoint(path)
        except MedusaError:
            continue
