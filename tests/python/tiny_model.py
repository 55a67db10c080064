"""Models of a few kilobytes, in the Hugging Face layout, made from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

Array = npt.NDArray[np.float32]
BOS, EOS = 256, 257
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
CONFIG = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def save_model(
    folder: Path, *, seed: int = 0, tensors: dict[str, Array] | None = None, **changes: Any
) -> Path:
    """Write a model of random weights, or of `tensors`, with a tokenizer of bytes."""
    config = CONFIG | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors or random_tensors(config, seed), folder / "model.safetensors")
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer whose tokens 0..255 are bytes, so that characters span several tokens."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    order |= {chr(256 + index): byte for index, byte in enumerate(others)}
    assert set(order) == set(alphabet)
    tokenizer = Tokenizer(models.BPE(vocab=order, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<s>", special=True), AddedToken("</s>", special=True)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def random_tensors(config: dict[str, Any], seed: int) -> dict[str, Array]:
    """Return weights whose logits spread enough for answers to vary."""
    rng = np.random.default_rng(seed)
    hidden, inner, dim = (config[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    query, kv = (config[f"num_{k}_heads"] * dim for k in ("attention", "key_value"))

    def weight(rows: int, columns: int, scale: float = 1.0) -> Array:
        return (rng.standard_normal((rows, columns)) * scale / columns**0.5).astype(np.float32)

    def norm(size: int) -> Array:
        return (1 + 0.1 * rng.standard_normal(size)).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": weight(config["vocab_size"], hidden, hidden**0.5),
        "model.norm.weight": norm(hidden),
    }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = weight(config["vocab_size"], hidden, 3.0)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors |= {
            prefix + "input_layernorm.weight": norm(hidden),
            prefix + "self_attn.q_proj.weight": weight(query, hidden, 2.0),
            prefix + "self_attn.k_proj.weight": weight(kv, hidden, 2.0),
            prefix + "self_attn.v_proj.weight": weight(kv, hidden, 2.0),
            prefix + "self_attn.o_proj.weight": weight(hidden, query, 2.0),
            prefix + "post_attention_layernorm.weight": norm(hidden),
            prefix + "mlp.gate_proj.weight": weight(inner, hidden),
            prefix + "mlp.up_proj.weight": weight(inner, hidden),
            prefix + "mlp.down_proj.weight": weight(hidden, inner, 2.0),
        }
    return tensors


def save_heads(
    folder: Path,
    *,
    num_heads: int = 3,
    version: int = 1,
    grounded: bool = False,
    seed: int = 1,
    tensors: dict[str, Array] | None = None,
    **config: Any,
) -> Path:
    """Write Medusa heads of random weights, or of `tensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tensors or random_heads(num_heads, version, seed, grounded)
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    settings = {"medusa_num_heads": num_heads, "medusa_num_layers": 1, **config}
    if grounded:
        settings["medusa_grounded"] = True
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def random_heads(
    num_heads: int, version: int, seed: int, grounded: bool = False
) -> dict[str, Array]:
    """Return heads that know nothing."""
    rng = np.random.default_rng(seed)
    hidden, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    tensors = {}
    for head in range(num_heads):
        columns = 2 * hidden if grounded else hidden
        tensors[f"{head}.0.linear.weight"] = rng.standard_normal((hidden, columns)) / hidden**0.5
        tensors[f"{head}.0.linear.bias"] = rng.standard_normal(hidden)
        if version == 1:
            tensors[f"{head}.1.weight"] = rng.standard_normal((vocab, hidden))
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def permutation_tensors(
    seed: int = 2, cycle_length: int = 320, scale: float = 1.0, noise: float = 0.0
) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
    """Return a model whose next token is a fixed permutation of the last one.

    Layers add nothing, so a row's hidden state is its token's embedding, and the row of lm_head
    that fits it best is the one of ``permutation[token]``. The end token is a cycle of its own,
    the others form cycles of at most `cycle_length`. `scale` is that of the logits, `noise` makes other
    tokens likely too.
    """
    rng = np.random.default_rng(seed)
    config = CONFIG
    tensors = {
        name: np.zeros_like(tensor)
        if name.endswith(("o_proj.weight", "down_proj.weight"))
        else tensor
        for name, tensor in random_tensors(config, seed).items()
    }
    cycle = rng.permutation([t for t in range(config["vocab_size"]) if t != EOS])
    permutation = np.arange(config["vocab_size"])
    for start in range(0, len(cycle), cycle_length):
        part = cycle[start : start + cycle_length]
        permutation[part] = np.roll(part, -1)
    embedding = tensors["model.embed_tokens.weight"]
    tensors["model.norm.weight"] = np.ones_like(tensors["model.norm.weight"])
    tensors["lm_head.weight"] = np.zeros_like(embedding)
    tensors["lm_head.weight"][permutation] = embedding
    tensors["lm_head.weight"] += noise * rng.standard_normal(embedding.shape, np.float32)
    tensors["lm_head.weight"] *= np.float32(scale)
    return tensors, permutation


def perfect_heads(
    tensors: dict[str, Array], permutation: npt.NDArray[np.int64], num_heads: int
) -> dict[str, Array]:
    """Return heads that are always right: head k looks k + 2 applications ahead."""
    embedding = tensors["model.embed_tokens.weight"]
    hidden = embedding.shape[1]
    heads: dict[str, Array] = {}
    target = permutation
    for head in range(num_heads):
        target = permutation[target]
        projection = np.zeros_like(embedding)
        projection[target] = embedding
        heads[f"{head}.0.linear.weight"] = np.zeros((hidden, hidden), np.float32)
        heads[f"{head}.0.linear.bias"] = np.zeros(hidden, np.float32)
        heads[f"{head}.1.weight"] = projection
    return heads
