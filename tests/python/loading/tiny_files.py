"""Writers of tiny, valid model files. Tests damage what these write."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

LAYERS, HEADS, KV_HEADS, HEAD_DIM = 2, 4, 2, 16
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġ", "Ġ")]
TOKENS = [
    *SPECIAL,
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(left + right for left, right in MERGES),
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def shapes(arch: str, hidden: int, inner: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """GGUF names and logical shapes of a tiny model."""
    query, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    result: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
    }
    for n in range(LAYERS):
        block = f"blk.{n}."
        result |= {
            block + "attn_norm.weight": (hidden,),
            block + "attn_q.weight": (query, hidden),
            block + "attn_k.weight": (kv, hidden),
            block + "attn_v.weight": (kv, hidden),
            block + "attn_output.weight": (hidden, query),
            block + "ffn_norm.weight": (hidden,),
            block + "ffn_gate.weight": (inner, hidden),
            block + "ffn_up.weight": (inner, hidden),
            block + "ffn_down.weight": (hidden, inner),
        }
        if arch == "qwen2":
            sizes = {"q": query, "k": kv, "v": kv}
            result |= {f"{block}attn_{x}.bias": (size,) for x, size in sizes.items()}
        if arch == "qwen3":
            result |= {f"{block}attn_{x}_norm.weight": (HEAD_DIM,) for x in "qk"}
    return result


@dataclass
class GgufRecipe:
    """What goes into a tiny GGUF file."""

    arch: str = "llama"
    hidden: int = 64
    inner: int = 96
    dtype: str = "Q8_0"  # of matrices; vectors are F32
    metadata: dict[str, Any] = field(default_factory=dict)  # None drops a key
    reshape: dict[str, tuple[int, ...]] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    extra: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)  # of matrices with this in their name


# Bytes of a block that are the upper halves of its f16 fields.
EXPONENTS = {
    **dict.fromkeys(("Q8_0", "Q4_0", "Q5_0"), (1,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (1, 3)),
    "Q2_K": (81, 83),
    "Q3_K": (109,),
    "Q6_K": (209,),
}
# What makes a minimum, the second f16 field, balance the scale: minus 8 or 16 times as much, or of
# super-blocks, which subtract it, as much.
BALANCE = {"Q4_1": 0x8C, "Q5_1": 0x90, "Q4_K": 0x0C, "Q5_K": 0x10}


def gguf_metadata(recipe: GgufRecipe) -> dict[str, Any]:
    a = recipe.arch
    values = {
        f"{a}.block_count": LAYERS,
        f"{a}.context_length": 128,
        f"{a}.embedding_length": recipe.hidden,
        f"{a}.feed_forward_length": recipe.inner,
        f"{a}.attention.head_count": HEADS,
        f"{a}.attention.head_count_kv": KV_HEADS,
        f"{a}.attention.key_length": HEAD_DIM,
        f"{a}.attention.value_length": HEAD_DIM,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }
    return {k: v for k, v in (values | recipe.metadata).items() if v is not None}


def write_gguf(path: Path, recipe: GgufRecipe) -> Path:
    writer = gguf.GGUFWriter(path, recipe.arch)
    for key, value in gguf_metadata(recipe).items():
        _add(writer, key, value)
    generator = np.random.default_rng(0)
    tensors = shapes(recipe.arch, recipe.hidden, recipe.inner, len(TOKENS)) | recipe.extra
    for name, shape in (tensors | recipe.reshape).items():
        if name not in recipe.drop:
            own = (dtype for part, dtype in recipe.dtypes.items() if part in name)
            _add_tensor(writer, name, shape, next(own, recipe.dtype), generator)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    (add | {str: writer.add_string, list: writer.add_array})[type(value)](key, value)


def _add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    generator: np.random.Generator,
) -> None:
    values = generator.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        writer.add_tensor(name, np.abs(values))
        return
    kind = GGMLQuantizationType[dtype]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    # Bytes below 120 hold no NaN or infinity in any format; scales of blocks are about 1/1000.
    limit = 256 if dtype in EXPONENTS else 120
    raw = generator.integers(0, limit, (*shape[:-1], shape[-1] // elements, size), dtype=np.uint8)
    for at in EXPONENTS.get(dtype, ()):
        raw[..., at] = raw[..., at] % 8 + 0x10
    if dtype in BALANCE:
        raw[..., 2] = raw[..., 0]
        raw[..., 3] = raw[..., 1] + BALANCE[dtype]
    writer.add_tensor(name, raw.reshape(*shape[:-1], -1), raw_dtype=kind)


def write_tokenizer(folder: Path, **settings: Any) -> None:
    """tokenizer.json and tokenizer_config.json of the tiny byte-level tokenizer."""
    backend = Tokenizer(BPE({token: i for i, token in enumerate(TOKENS)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    backend.save(str(folder / "tokenizer.json"))
    values = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(values | settings))
