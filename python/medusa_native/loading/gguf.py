"""GGUF backbones: metadata to configuration, GGUF tensor names to canonical ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields
from medusa_native.loading.gguf_file import GgufFile
from medusa_native.loading.gguf_tokenizer import gguf_tokenizer
from medusa_native.loading.shapes import check_backbone
from medusa_native.loading.tensors import Checkpoint, HostTensor, require_shape

if TYPE_CHECKING:
    from pathlib import Path

# GGUF architecture: are q and k rows permuted for interleaved rotation?
# "llama" also holds Vicuna, Mistral and SmolLM2.
_INTERLEAVED = {"llama": True, "qwen2": False, "qwen3": False}

_ROPE_FREQS = "rope_freqs.weight"
_GLOBAL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def canonical_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor; the name itself where there is none."""
    stem, _, kind = name.rpartition(".")
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{kind}"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if match and match[2] in _BLOCK:
        return f"model.layers.{match[1]}.{_BLOCK[match[2]]}.{kind}"
    return name


def gguf_name(name: str) -> str:
    """GGUF's name of a canonical tensor."""
    stem, _, kind = name.rpartition(".")
    for theirs, ours in _GLOBAL.items():
        if stem == ours:
            return f"{theirs}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    block = next(theirs for theirs, ours in _BLOCK.items() if part == ours)
    return f"blk.{layer}.{block}.{kind}"


def load_gguf(path: Path) -> Checkpoint:
    """Map a GGUF file.

    Raises
    ------
    ModelFormatError
        The file is damaged, of an unknown architecture, or its tensors do not fit its metadata.
    """
    file = GgufFile(path)
    fields = Fields(path, file.metadata)
    tensors = dict(file.tensors)
    factors = tensors.pop(_ROPE_FREQS, None)
    tensors = {canonical_name(name): tensor for name, tensor in tensors.items()}
    config = _config(fields, tensors)
    config["rope_freq_factors"] = _freq_factors(path, factors, config["head_dim"])
    tensors = check_backbone(path, config, tensors)
    return Checkpoint(config, tensors, gguf_tokenizer(fields), path)


def _config(fields: Fields, tensors: dict[str, HostTensor]) -> dict[str, Any]:
    arch = fields.get_str("general.architecture")
    _require_supported(fields, arch)
    config = {"architecture": arch, "rope_interleaved": _INTERLEAVED[arch]}
    return config | _sizes(fields, arch, tensors) | _rope(fields, arch)


def _require_supported(fields: Fields, arch: str) -> None:
    problem = None
    if arch not in _INTERLEAVED:
        supported = ", ".join(_INTERLEAVED)
        problem = f"unknown architecture '{arch}': supported GGUF architectures are {supported}"
    elif fields.get_int(f"{arch}.expert_count", 0, low=0) > 0:
        problem = "mixture-of-experts models are not supported"
    elif fields.get_int("split.count", 1) > 1:
        problem = "one part of several: join them first with llama-gguf-split --merge"
    if problem is not None:
        raise ModelFormatError(f"{fields.path}: {problem}")


def _sizes(fields: Fields, arch: str, tensors: dict[str, HostTensor]) -> dict[str, Any]:
    hidden = fields.get_int(f"{arch}.embedding_length")
    layers = fields.get_int(f"{arch}.block_count")
    heads = _same_for_all_layers(fields, f"{arch}.attention.head_count", layers, None)
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None:
        raise ModelFormatError(f"{fields.path}: tensor 'token_embd.weight' expected, found none")
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": _same_for_all_layers(
            fields, f"{arch}.feed_forward_length", layers, None
        ),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _same_for_all_layers(
            fields, f"{arch}.attention.head_count_kv", layers, heads
        ),
        "head_dim": _head_dim(fields, arch, max(hidden // heads, 1)),
        "max_position_embeddings": fields.get_int(f"{arch}.context_length"),
        "rms_norm_eps": fields.get_float(f"{arch}.attention.layer_norm_rms_epsilon"),
        "sliding_window": fields.get_int(f"{arch}.attention.sliding_window", 0, low=0),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }


def _same_for_all_layers(fields: Fields, key: str, layers: int, default: int | None) -> int:
    value = fields.values.get(key)
    if not isinstance(value, list):
        return fields.get_int(key, default)
    if len(value) != layers or len(set(value)) != 1:
        raise fields.fail(key, f"one number for all {layers} layers")
    return Fields(fields.path, {key: value[0]}).get_int(key)


def _head_dim(fields: Fields, arch: str, default: int) -> int:
    dim = fields.get_int(f"{arch}.attention.key_length", default)
    for key in (f"{arch}.attention.value_length", f"{arch}.rope.dimension_count"):
        if fields.get_int(key, dim) != dim:
            raise fields.fail(key, f"{dim}, the size of a head")
    return dim


def _rope(fields: Fields, arch: str) -> dict[str, Any]:
    kind = fields.get_str(f"{arch}.rope.scaling.type", "none")
    factor = fields.get_float(f"{arch}.rope.scaling.factor", 1.0)
    if f"{arch}.rope.scale_linear" in fields:
        kind, factor = "linear", fields.get_float(f"{arch}.rope.scale_linear")
    if kind not in ("none", "linear"):
        raise fields.fail(f"{arch}.rope.scaling.type", "'none' or 'linear'")
    return {
        "rope_theta": fields.get_float(f"{arch}.rope.freq_base", 10000.0),
        "rope_scaling_type": kind,
        "rope_factor": factor if kind == "linear" else 1.0,
        "rope_low_freq_factor": 1.0,
        "rope_high_freq_factor": 4.0,
        "rope_original_max_position_embeddings": fields.get_int(f"{arch}.context_length"),
    }


def _freq_factors(path: Path, tensor: HostTensor | None, head_dim: int) -> list[float]:
    if tensor is None:
        return []
    require_shape(path, _ROPE_FREQS, tensor, (head_dim // 2,))
    if tensor.dtype != "F32":
        raise ModelFormatError(f"{path}: tensor '{_ROPE_FREQS}' must be F32, found {tensor.dtype}")
    factors: list[float] = tensor.to_float32().tolist()
    if not all(0.0 < factor < 1e30 for factor in factors):
        raise ModelFormatError(f"{path}: tensor '{_ROPE_FREQS}' must hold positive finite numbers")
    return factors
