"""config.json, generation_config.json and tokenizer files for a backbone read from a GGUF file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.gguf_metadata import rope_factors

if TYPE_CHECKING:
    from pathlib import Path

    from medusa_native.loading.tensors import Checkpoint

_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
# config.json of Llama 3.1 (factor 8) and 3.2 (factor 32)
_LLAMA3_FACTORS = (8.0, 32.0)
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
)


def hf_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the config.json that describes a backbone, its weights' type left out.

    Raises
    ------
    ModelFormatError
        config.json cannot say what the file holds.
    """
    config = checkpoint.config
    kind = config["architecture"]
    biased = any(name.endswith("q_proj.bias") for name in checkpoint.tensors)
    problem = None
    if config["rope_freq_factors"] and _llama3(config) is None:
        problem = "rope_freqs.weight, factors of rotation without the rule that made them"
    elif kind == "llama" and biased:
        problem = "biases of q, k and v, which no llama has"
    if problem is not None:
        raise ModelFormatError(
            f"{checkpoint.path}: a model that config.json can describe expected, found {problem}: "
            "merge into a GGUF file, or into the original folder"
        )
    if kind == "llama" and config["sliding_window"]:
        kind = "mistral"
    return {
        "architectures": [f"{_CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        "hidden_act": "silu",
        **{key: config[key] for key in _SIZES},
        "rope_scaling": _scaling(config),
        **_window(config, kind),
        **_special(checkpoint),
    }


def _llama3(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the rule that made the factors of rotation, if it is one of the published."""
    for factor in _LLAMA3_FACTORS:
        rule = _LLAMA3 | {"factor": factor}
        guess = {f"rope_{key}": value for key, value in rule.items()}
        made = rope_factors(
            config | guess | {"rope_scaling_type": "llama3", "rope_freq_factors": []}
        )
        if made is not None and np.allclose(made, config["rope_freq_factors"], rtol=1e-5, atol=0):
            return rule
    return None


def _scaling(config: dict[str, Any]) -> dict[str, Any] | None:
    if config["rope_freq_factors"]:
        return {"rope_type": "llama3"} | (_llama3(config) or {})
    if config["rope_scaling_type"] == "none":
        return None
    return {"rope_type": config["rope_scaling_type"], "factor": config["rope_factor"]}


def _window(config: dict[str, Any], kind: str) -> dict[str, Any]:
    window = config["sliding_window"] or None
    if kind == "mistral":
        return {"sliding_window": window}
    if not kind.startswith("qwen"):
        return {}
    use = {"use_sliding_window": window is not None, "sliding_window": window}
    return use | ({"max_window_layers": 0} if window else {})


def _special(checkpoint: Checkpoint) -> dict[str, Any]:
    tokenizer = checkpoint.tokenizer
    ends = list(tokenizer.eos_token_ids)
    found = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends if ends else None}
    return {key: value for key, value in found.items() if value is not None}


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    """Write tokenizer.json and what stands beside it."""
    tokenizer = checkpoint.tokenizer
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": checkpoint.config["max_position_embeddings"],
        **tokenizer.special_tokens,
    }
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    _write_json(folder / "tokenizer_config.json", settings)
    if special := _special(checkpoint):
        _write_json(folder / "generation_config.json", special)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
