"""Hugging Face folders: config.json, safetensors or PyTorch shards."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields, read_json
from medusa_native.loading.hf_quantization import join_scales, scale_block
from medusa_native.loading.hf_tokenizer import hf_tokenizer
from medusa_native.loading.safetensors_file import read_safetensors
from medusa_native.loading.shapes import check_backbone
from medusa_native.loading.tensors import Checkpoint, HostTensor
from medusa_native.loading.torch_file import read_torch

if TYPE_CHECKING:
    from collections.abc import Callable

# What a key that config.json leaves out means, as in Transformers' configuration classes.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32768},
    "qwen3": {"max_position_embeddings": 32768, "head_dim": 128},
}
_READERS = (
    ("model.safetensors", read_safetensors),
    ("pytorch_model.bin", read_torch),
)


def load_folder(folder: Path) -> Checkpoint:
    """Map a Hugging Face folder.

    Raises
    ------
    ModelFormatError
        A file is missing or damaged, the architecture or an option of it is not supported, or the
        tensors do not fit the configuration.
    """
    fields = read_json(folder / "config.json")
    config = model_config(fields)
    block, stored = scale_block(fields), read_shards(folder)
    if "quantization_config" in fields:
        stored = join_scales(folder, stored, block)
    tensors = check_backbone(folder, config, stored)
    return Checkpoint(config, tensors, hf_tokenizer(folder), folder)


def read_shards(
    folder: Path, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, HostTensor]:
    """Map the tensors of a folder: one file, or the shards an index lists."""
    for name, reader in _READERS:
        paths = _shards(folder, name)
        if paths:
            return {k: v for path in paths for k, v in reader(path, wanted).items()}
    expected = ", ".join(f"{name}, {name}.index.json" for name, _ in _READERS)
    raise ModelFormatError(f"{folder}: one of {expected} expected, found none")


def shard_files(folder: Path) -> list[Path]:
    """Return the file, or the shards an index lists, that hold a model; empty when there is none."""
    return next((paths for name, _ in _READERS if (paths := _shards(folder, name))), [])


def _shards(folder: Path, name: str) -> list[Path]:
    return _single(folder, name) or _indexed(folder, name)


def _single(folder: Path, name: str) -> list[Path]:
    return [folder / name] if (folder / name).is_file() else []


def _indexed(folder: Path, name: str) -> list[Path]:
    path = folder / f"{name}.index.json"
    if not path.is_file():
        return []
    weight_map = read_json(path).get_fields("weight_map").values
    names = sorted({str(shard) for shard in weight_map.values()})
    for shard in names:
        if PurePosixPath(shard).name != shard or not (folder / shard).is_file():
            raise ModelFormatError(f"{path}: shard '{shard}' expected beside it, found none")
    return [folder / shard for shard in names]


def model_config(fields: Fields) -> dict[str, Any]:
    """Keyword arguments of the native `ModelConfig` from a config.json."""
    kind = fields.get_str("model_type", "")
    if kind not in _DEFAULTS:
        raise ModelFormatError(
            f"{fields.path}: unknown architecture: 'model_type' must be one of "
            f"{', '.join(_DEFAULTS)}, found {kind!r}"
        )
    if fields.get_str("hidden_act", "silu") not in ("silu", "swish"):
        raise fields.fail("hidden_act", "'silu'")
    fields = Fields(fields.path, _DEFAULTS[kind] | dict(fields.values))
    heads = fields.get_int("num_attention_heads")
    hidden = fields.get_int("hidden_size")
    return {
        "architecture": kind,
        "vocab_size": fields.get_int("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": fields.get_int("intermediate_size"),
        "num_hidden_layers": fields.get_int("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get_int("num_key_value_heads", heads),
        "head_dim": fields.get_int("head_dim", max(hidden // heads, 1)),
        "max_position_embeddings": fields.get_int("max_position_embeddings"),
        "rms_norm_eps": fields.get_float("rms_norm_eps", 1e-6),
        "rope_interleaved": False,
        "rope_freq_factors": [],
        "sliding_window": _sliding_window(fields, kind),
        "tie_word_embeddings": fields.get_bool("tie_word_embeddings", False),
        **_rope(fields),
    }


def _sliding_window(fields: Fields, kind: str) -> int:
    if kind == "llama" or (kind.startswith("qwen") and not _qwen_slides(fields)):
        return 0
    return fields.get_int("sliding_window", 0, low=0)


def _qwen_slides(fields: Fields) -> bool:
    if not fields.get_bool("use_sliding_window", False):
        return False
    full = fields.get_int("max_window_layers", 28, low=0)
    layers = fields.get_int("num_hidden_layers")
    if 0 < full < layers:
        raise fields.fail("max_window_layers", f"0 or at least {layers}: layers must be alike")
    return full == 0


def _rope(fields: Fields) -> dict[str, Any]:
    key = "rope_parameters" if "rope_parameters" in fields else "rope_scaling"
    rope = fields.get_fields(key)
    kind = rope.get_str("rope_type", rope.get_str("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ModelFormatError(
            f"{fields.path}: '{key}' must have rope_type default, linear or llama3, found {kind!r}"
        )
    if rope.get_float("partial_rotary_factor", 1.0) != 1.0:
        raise rope.fail("partial_rotary_factor", "1")
    theta = rope.get_float("rope_theta", fields.get_float("rope_theta", 10000.0))
    length = fields.get_int("max_position_embeddings")
    return {
        "rope_theta": theta,
        "rope_scaling_type": "none" if kind == "default" else kind,
        "rope_factor": 1.0 if kind == "default" else rope.get_float("factor"),
        **_llama3(rope, kind, length),
    }


def _llama3(rope: Fields, kind: str, length: int) -> dict[str, Any]:
    required = kind == "llama3"
    original = "original_max_position_embeddings"
    return {
        "rope_low_freq_factor": rope.get_float("low_freq_factor", None if required else 1.0),
        "rope_high_freq_factor": rope.get_float("high_freq_factor", None if required else 4.0),
        "rope_original_max_position_embeddings": rope.get_int(original, length),
    }
