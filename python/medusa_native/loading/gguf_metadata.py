"""Metadata of a GGUF file for a backbone that was read from a Hugging Face folder.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGUFValueType

from medusa_native.errors import ModelFormatError
from medusa_native.loading.gguf_tokenizer import PRE_TOKENIZERS
from medusa_native.loading.sentencepiece import Piece, PieceType
from medusa_native.loading.sentencepiece_model import read_sentencepiece

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.loading.tensors import Checkpoint

Typed = tuple[Any, GGUFValueType, GGUFValueType | None]
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def _u32(value: int) -> Typed:
    return value, GGUFValueType.UINT32, None


def _f32(value: float) -> Typed:
    return value, GGUFValueType.FLOAT32, None


def _text(value: str) -> Typed:
    return value, GGUFValueType.STRING, None


def _list(values: list[Any], item: GGUFValueType) -> Typed:
    return values, GGUFValueType.ARRAY, item


def model_metadata(checkpoint: Checkpoint) -> dict[str, Typed]:
    """Return sizes and rotation."""
    config = checkpoint.config
    a = ARCHITECTURES[config["architecture"]]
    found = {
        "general.name": _text(checkpoint.path.name),
        f"{a}.block_count": _u32(config["num_hidden_layers"]),
        f"{a}.context_length": _u32(config["max_position_embeddings"]),
        f"{a}.embedding_length": _u32(config["hidden_size"]),
        f"{a}.feed_forward_length": _u32(config["intermediate_size"]),
        f"{a}.vocab_size": _u32(config["vocab_size"]),
        f"{a}.attention.head_count": _u32(config["num_attention_heads"]),
        f"{a}.attention.head_count_kv": _u32(config["num_key_value_heads"]),
        f"{a}.attention.key_length": _u32(config["head_dim"]),
        f"{a}.attention.value_length": _u32(config["head_dim"]),
        f"{a}.attention.layer_norm_rms_epsilon": _f32(config["rms_norm_eps"]),
        f"{a}.rope.dimension_count": _u32(config["head_dim"]),
        f"{a}.rope.freq_base": _f32(config["rope_theta"]),
    }
    if config["sliding_window"]:
        found[f"{a}.attention.sliding_window"] = _u32(config["sliding_window"])
    if config["rope_scaling_type"] == "linear":
        found[f"{a}.rope.scaling.type"] = _text("linear")
        found[f"{a}.rope.scaling.factor"] = _f32(config["rope_factor"])
    return found


def rope_factors(config: dict[str, Any]) -> npt.NDArray[np.float32] | None:
    """Divisors of the frequencies, float32 (head_dim / 2,), or None.

    Source: Llama 3.1; Transformers `modeling_rope_utils._compute_llama3_parameters`.
    """
    if config["rope_freq_factors"]:
        return np.asarray(config["rope_freq_factors"], dtype=np.float32)
    if config["rope_scaling_type"] != "llama3":
        return None
    half = np.arange(0, config["head_dim"], 2) / config["head_dim"]
    wavelength = 2 * math.pi * config["rope_theta"] ** half
    low, high = config["rope_low_freq_factor"], config["rope_high_freq_factor"]
    turns = config["rope_original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    kept = (1 - smooth) / config["rope_factor"] + smooth
    return np.asarray(1 / kept, dtype=np.float32)


def tokenizer_metadata(checkpoint: Checkpoint) -> dict[str, Typed]:
    """Return the tokenizer.

    Raises
    ------
    ModelFormatError
        GGUF has no name for how this tokenizer cuts text.
    """
    tokenizer = checkpoint.tokenizer
    path = checkpoint.path / "tokenizer.model"
    found = _sentencepiece(checkpoint) if path.is_file() else _byte_level(checkpoint)
    for role, key in _ROLES.items():
        text = tokenizer.special_tokens.get(role)
        index = None if text is None else tokenizer.backend.token_to_id(text)
        if index is not None:
            found[key] = _u32(index)
    if "eos_token_id" not in found and tokenizer.eos_token_ids:
        found["eos_token_id"] = _u32(tokenizer.eos_token_ids[0])
    if "eot_token_id" not in found and len(tokenizer.eos_token_ids) > 1:
        known = found["eos_token_id"][0]
        found["eot_token_id"] = _u32(next(i for i in tokenizer.eos_token_ids if i != known))
    around = tokenizer.encode("", add_special_tokens=True)
    bos = tokenizer.bos_token_id
    found["add_bos_token"] = (bos is not None and bos in around, GGUFValueType.BOOL, None)
    named = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    if tokenizer.chat_template is not None:
        named["tokenizer.chat_template"] = _text(tokenizer.chat_template)
    return named


def _sentencepiece(checkpoint: Checkpoint) -> dict[str, Typed]:
    model = read_sentencepiece(checkpoint.path / "tokenizer.model")
    found = {"model": _text("llama"), "pre": _text("default")}
    prefix = (model.add_dummy_prefix, GGUFValueType.BOOL, None)
    return found | {"add_space_prefix": prefix} | _vocabulary(checkpoint, model.pieces)


def _byte_level(checkpoint: Checkpoint) -> dict[str, Typed]:
    text = checkpoint.tokenizer.backend.to_str()
    model = json.loads(text)["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise ModelFormatError(
            f"{checkpoint.path}: a byte-level BPE tokenizer or tokenizer.model expected, "
            f"found {model['type']}{' with byte fallback' if model.get('byte_fallback') else ''}"
        )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    pieces = [Piece("", 0.0, PieceType.UNUSED)] * checkpoint.tokenizer.vocab_size
    for token, index in model["vocab"].items():
        pieces[index] = Piece(token, 0.0, PieceType.NORMAL)
    found = {"model": _text("gpt2"), "pre": _text(_pre(checkpoint))}
    found |= _vocabulary(checkpoint, pieces)
    del found["scores"]
    return found | {"merges": _list(merges, GGUFValueType.STRING)}


def _pre(checkpoint: Checkpoint) -> str:
    """Name how text is cut, by comparing with what is built for each name."""
    parts = json.loads(checkpoint.tokenizer.backend.to_str())
    wanted = _cutting(parts["pre_tokenizer"]), bool(parts["model"].get("ignore_merges"))
    for name, (build, ignore_merges, _) in PRE_TOKENIZERS.items():
        if (_cutting(json.loads(build().__getstate__())), ignore_merges) == wanted:
            return name
    raise ModelFormatError(
        f"{checkpoint.path / 'tokenizer.json'}: 'pre_tokenizer' must be that of "
        f"{', '.join(PRE_TOKENIZERS)}, found {json.dumps(parts['pre_tokenizer'])[:200]}"
    )


def _cutting(value: Any) -> Any:
    """Return a pre-tokenizer without what decides no token."""
    if isinstance(value, list):
        return [_cutting(item) for item in value]
    if isinstance(value, dict):
        return {key: _cutting(item) for key, item in value.items() if key != "trim_offsets"}
    return value


def _vocabulary(checkpoint: Checkpoint, pieces: list[Piece]) -> dict[str, Typed]:
    """Return tokens, scores and types, added tokens and unused rows of the embedding included."""
    size = checkpoint.config["vocab_size"]
    unused = [Piece(f"[PAD{i}]", -1000.0, PieceType.UNUSED) for i in range(size)]
    rows = [*pieces[:size], *unused[len(pieces) :]]
    added = checkpoint.tokenizer.backend.get_added_tokens_decoder()
    for index, token in added.items():
        kind = PieceType.CONTROL if token.special else PieceType.USER_DEFINED
        if rows[index].type in (PieceType.NORMAL, PieceType.UNUSED):
            rows[index] = Piece(token.content, rows[index].score, kind)
    rows = [piece if piece.text else unused[i] for i, piece in enumerate(rows)]
    return {
        "tokens": _list([piece.text for piece in rows], GGUFValueType.STRING),
        "scores": _list([piece.score for piece in rows], GGUFValueType.FLOAT32),
        "token_type": _list([int(piece.type) for piece in rows], GGUFValueType.INT32),
    }
