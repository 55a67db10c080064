from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf as gguf_package
import numpy as np
import pytest
from tiny_files import HEAD_DIM, LAYERS, TOKENS

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

Write = "Callable[..., Path]"
BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32"]
K_BLOCKS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def fails(path: Path, *parts: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_checkpoint(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_config(gguf: Callable[..., Path]) -> None:
    assert load_checkpoint(gguf()).config == {
        "architecture": "llama",
        "vocab_size": len(TOKENS),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5),
        "rope_theta": 10000.0,
        "rope_scaling_type": "none",
        "rope_factor": 1.0,
        "rope_low_freq_factor": 1.0,
        "rope_high_freq_factor": 4.0,
        "rope_original_max_position_embeddings": 128,
        "rope_freq_factors": [],
        "rope_interleaved": True,
        "sliding_window": 0,
        "tie_word_embeddings": True,
    }


@pytest.mark.parametrize("dtype", [*BLOCKS, *K_BLOCKS])
def test_tensors_are_the_files_bytes(gguf: Callable[..., Path], dtype: str) -> None:
    path = gguf(
        dtype=dtype,
        hidden=256,
        inner=256,
        metadata={"llama.attention.head_count": 16, "llama.attention.head_count_kv": 16},
        reshape={
            f"blk.{n}.attn_{x}.weight": (256, 256)
            for n in range(LAYERS)
            for x in ("q", "k", "v", "output")
        },
    )
    tensors = load_checkpoint(path).tensors
    reader = gguf_package.GGUFReader(path)
    assert len(tensors) == len(reader.tensors)
    for theirs in reader.tensors:
        ours = next(t for n, t in tensors.items() if n == _canonical(theirs.name))
        assert ours.dtype == theirs.tensor_type.name
        assert ours.shape == tuple(theirs.shape[::-1].tolist())
        np.testing.assert_array_equal(ours.data, theirs.data.view(np.uint8).reshape(-1))
        wide = gguf_package.dequantize(theirs.data, theirs.tensor_type)
        np.testing.assert_array_equal(ours.to_float32(), wide.reshape(ours.shape))


def _canonical(name: str) -> str:
    from medusa_native.loading.gguf import canonical_name

    return canonical_name(name)


def test_tensors_are_mapped_not_copied(gguf: Callable[..., Path]) -> None:
    for tensor in load_checkpoint(gguf()).tensors.values():
        assert not tensor.data.flags.writeable
        assert not tensor.data.flags.owndata


@pytest.mark.parametrize(
    ("arch", "name", "interleaved"),
    [
        ("llama", "self_attn.q_proj.weight", True),
        ("qwen2", "self_attn.k_proj.bias", False),
        ("qwen3", "self_attn.q_norm.weight", False),
    ],
)
def test_architectures(gguf: Callable[..., Path], arch: str, name: str, interleaved: bool) -> None:
    checkpoint = load_checkpoint(gguf(arch=arch))
    assert checkpoint.config["architecture"] == arch
    assert checkpoint.config["rope_interleaved"] is interleaved
    assert f"model.layers.1.{name}" in checkpoint.tensors


def test_own_lm_head_and_rope_factors(gguf: Callable[..., Path]) -> None:
    extra = {"output.weight": (len(TOKENS), 64), "rope_freqs.weight": (HEAD_DIM // 2,)}
    checkpoint = load_checkpoint(gguf(extra=extra))
    assert checkpoint.config["tie_word_embeddings"] is False
    assert "lm_head.weight" in checkpoint.tensors
    assert len(checkpoint.config["rope_freq_factors"]) == HEAD_DIM // 2


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, ("linear", 4.0)),
        ({"llama.rope.scale_linear": 2.0}, ("linear", 2.0)),
        ({"llama.rope.scaling.type": "none"}, ("none", 1.0)),
    ],
)
def test_rope_scaling(
    gguf: Callable[..., Path], metadata: dict[str, Any], expected: tuple[str, float]
) -> None:
    config = load_checkpoint(gguf(metadata=metadata)).config
    assert (config["rope_scaling_type"], config["rope_factor"]) == expected


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({"llama.block_count": None}, ("'llama.block_count'", "found nothing")),
        ({"llama.block_count": "two"}, ("'llama.block_count'", "whole number", "'two'")),
        ({"llama.block_count": 3}, ("model.layers.2.", "found none")),
        ({"llama.embedding_length": 65}, ("'model.embed_tokens.weight'", "65", "64")),
        ({"llama.attention.head_count": 8}, ("q_proj.weight", "(128, 64)", "(64, 64)")),
        ({"llama.attention.head_count": [4, 2]}, ("head_count", "all 2 layers", "[4, 2]")),
        ({"llama.attention.value_length": 8}, ("value_length", "16", "8")),
        ({"llama.rope.dimension_count": 8}, ("rope.dimension_count", "16", "8")),
        ({"llama.rope.freq_base": float("nan")}, ("rope.freq_base", "nan")),
        ({"llama.rope.scaling.type": "yarn"}, ("rope.scaling.type", "'linear'", "'yarn'")),
        ({"llama.expert_count": 8}, ("mixture-of-experts",)),
        ({"split.count": 3}, ("one part of several", "--merge")),
        ({"general.alignment": 3}, ("general.alignment", "power of two", "3")),
        ({"tokenizer.ggml.tokens": None}, ("tokenizer.ggml.tokens", "found nothing")),
        ({"tokenizer.ggml.model": "bert"}, ("tokenizer.ggml.model", "gpt2, llama", "'bert'")),
        ({"tokenizer.ggml.pre": "jais"}, ("tokenizer.ggml.pre", "smollm", "'jais'")),
        ({"tokenizer.ggml.eos_token_id": 10**6}, ("eos_token_id", "below", "1000000")),
        ({"tokenizer.ggml.token_type": [1, 1]}, ("token_type", str(len(TOKENS)))),
        ({"tokenizer.ggml.merges": ["ab"]}, ("merges", "pairs", "'ab'")),
        ({"tokenizer.ggml.merges": ["zz zz"]}, ("tokenizer metadata", "zz")),
        ({"tokenizer.chat_template": "{% for"}, ("chat template",)),
        ({"tokenizer.ggml.tokens": [*TOKENS, "one more"]}, ("token_type", str(len(TOKENS) + 1))),
        (
            {
                "tokenizer.ggml.tokens": [*TOKENS, "one more"],
                "tokenizer.ggml.token_type": [1] * (len(TOKENS) + 1),
            },
            ("embed_tokens", str(len(TOKENS) + 1), str(len(TOKENS))),
        ),
    ],
)
def test_wrong_metadata(
    gguf: Callable[..., Path], metadata: dict[str, Any], parts: tuple[str, ...]
) -> None:
    fails(gguf(metadata=metadata), *parts)


def test_unknown_architecture(gguf: Callable[..., Path]) -> None:
    fails(gguf(arch="gemma3"), "unknown architecture 'gemma3'", "llama, qwen2, qwen3")


def test_missing_tensor(gguf: Callable[..., Path]) -> None:
    fails(gguf(drop=("blk.1.ffn_up.weight",)), "layers.1.mlp.up_proj", "(96, 64)", "found none")


def test_missing_embedding(gguf: Callable[..., Path]) -> None:
    fails(gguf(drop=("token_embd.weight",)), "'token_embd.weight'", "found none")


def test_wrong_shape(gguf: Callable[..., Path]) -> None:
    path = gguf(reshape={"blk.1.ffn_up.weight": (64, 96)})
    fails(path, "layers.1.mlp.up_proj.weight", "(96, 64)", "(64, 96)")


def test_foreign_tensor(gguf: Callable[..., Path]) -> None:
    fails(gguf(extra={"blk.0.attn_sinks.weight": (4,)}), "'blk.0.attn_sinks.weight'", "llama")


def test_one_bias_of_three(gguf: Callable[..., Path]) -> None:
    path = gguf(arch="qwen2", drop=("blk.0.attn_k.bias",))
    fails(path, "layers.0.self_attn.k_proj.bias", "found none")


def test_unsupported_block_format(gguf: Callable[..., Path]) -> None:
    path = gguf(dtype="IQ4_NL")
    fails(path, "token_embd.weight", "Q4_K", "IQ4_NL")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        load_checkpoint(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("empty",)),
        (b"GGUF", ("truncated",)),
        (b"GGUX" + bytes(20), ("b'GGUF'", "b'GGUX'")),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), ("version", "found 1")),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), ("version", "little-endian")),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), ("tensors", "truncated")),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), ("metadata fields", "truncated")),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(12), ("a string", "truncated")),
        (b"GGUF" + struct.pack("<IQQQ2sI", 3, 0, 1, 2, b"\xff\xff", 4) + bytes(4), ("UTF-8",)),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99) + bytes(9), ("'k'", "99")),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**61), ("'k'", "strings")),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 5, 2**62), ("'k'", "values")),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), ("'k'", "of arrays")),
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes, parts: tuple[str, ...]) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    fails(path, *parts)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("dims", "dtype", "offset", "parts"),
    [
        ((2**40, 2**40), 0, 0, ("'t'", "file's end")),
        ((2**63, 2**63, 2**63, 2**63), 0, 0, ("'t'", "file's end")),
        ((0,), 0, 0, ("'t'", "whole blocks")),
        ((33,), 8, 0, ("'t'", "Q8_0", "blocks of 32", "(33,)")),
        ((4,), 0, 2**63, ("'t'", "file's end")),
        ((4,), 77, 0, ("'t'", "F32", "type 77")),
        ((1,) * 5, 0, 0, ("'t'", "4 axes", "5")),
    ],
)
def test_hostile_tensors(
    tmp_path: Path, dims: tuple[int, ...], dtype: int, offset: int, parts: tuple[str, ...]
) -> None:
    path = tmp_path / "hostile.gguf"
    info = struct.pack("<Q1sI", 1, b"t", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    path.write_bytes(head + info + struct.pack("<IQ", dtype, offset) + bytes(64))
    fails(path, *parts)
