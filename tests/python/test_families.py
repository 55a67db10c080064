"""Every family against Transformers in float32: prefill, and 32 decode steps on the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFWriter
from tiny_model import save_tokenizer

from medusa_native import Decoder, SamplingParams
from medusa_native.engine import load_model
from medusa_native.loading import load_checkpoint

PROMPT, STEPS = 70, 32  # 70: beyond one page of the cache
BOUND = 1e-4  # of the largest logit
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", {"num_key_value_heads": 4}),
    "vicuna": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-6}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_linear": ("Llama", {"rope_parameters": LINEAR}),
    "mistral": ("Mistral", {"sliding_window": 24}),
    "smollm2": (
        "Llama",
        {"tie_word_embeddings": True, "num_attention_heads": 6, "num_key_value_heads": 2,
         "hidden_size": 192, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}},
    ),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 64}),
}  # fmt: skip


def reference(family: str) -> Any:
    """Return a random model of the family; norms and biases are random too."""
    kind, changes = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(**SIZES | changes)
    config._attn_implementation = "eager"
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.5)
    return model


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def load(path: Path) -> Any:
    return load_model(load_checkpoint(path), "float32", 2)


def tokens() -> list[int]:
    return np.random.default_rng(4).integers(0, 256, PROMPT + STEPS).tolist()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(family: str, tmp_path: Path) -> None:
    model = reference(family)
    with torch.no_grad():
        expected = model(torch.tensor([tokens()])).logits[0].numpy()
    found = load(save(model, tmp_path)).logits(tokens(), [PROMPT] + [1] * STEPS)
    assert found.dtype == np.float32
    assert distance(found[:PROMPT], expected[:PROMPT]) <= BOUND
    assert distance(found[PROMPT:], expected[PROMPT:]) <= BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_do_not_matter(family: str, tmp_path: Path) -> None:
    """The row law, seen from outside: the same bits however the sequence is cut."""
    model = load(save(reference(family), tmp_path))
    whole = model.logits(tokens())
    for chunks in ([PROMPT] + [1] * STEPS, [1, 31, 40, 30], [64, 38]):
        assert np.array_equal(model.logits(tokens(), chunks), whole)


@pytest.mark.parametrize("family", ["llama3", "mistral", "qwen3"])
def test_greedy_answers(family: str, tmp_path: Path) -> None:
    model = reference(family)
    decoder = Decoder(save(model, tmp_path), dtype="float32")
    prompt = tokens()[:PROMPT]
    (found,) = decoder.generate(prompt, SamplingParams(max_tokens=STEPS, ignore_eos=True))
    expected = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, PROMPT, dtype=torch.long),
        max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert found.outputs[0].token_ids == expected[0, PROMPT:].tolist()


def interleave(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Permute q or k rows from halves (i, i + d/2) to pairs (2i, 2i + 1), as GGUF stores Llama."""
    halves = weight.reshape(num_heads, 2, -1, weight.shape[-1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model: Any, path: Path) -> Path:
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    add_tokenizer(writer)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(*gguf_tensor(name, tensor.numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: GGUFWriter) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [f"\N{LOWER ONE EIGHTH BLOCK}{i}" for i in range(SIZES["vocab_size"] - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
}


def gguf_tensor(name: str, tensor: np.ndarray, config: Any) -> tuple[str, np.ndarray]:
    if "q_proj" in name:
        tensor = interleave(tensor, config.num_attention_heads)
    elif "k_proj" in name:
        tensor = interleave(tensor, config.num_key_value_heads)
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name, np.ascontiguousarray(tensor)


def test_gguf_equals_its_twin(tmp_path: Path) -> None:
    """The same weights as a GGUF file, with q and k rows permuted for interleaved rotation."""
    model = reference("llama2")
    folder = load(save(model, tmp_path / "folder")).logits(tokens())
    file = load(write_gguf(model, tmp_path / "model.gguf")).logits(tokens())
    assert distance(file, folder) <= 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bfloat16_files(dtype: str, tmp_path: Path) -> None:
    """They hold exactly what they were rounded to; computing in bfloat16 stays near."""
    model = reference("qwen2").to(torch.bfloat16)
    path = save(model, tmp_path)
    weights = {name: tensor.dtype for name, tensor in load_checkpoint(path).tensors.items()}
    assert set(weights.values()) == {"BF16"}
    wide = type(model).from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = wide(torch.tensor([tokens()])).logits[0].numpy()
    found = load_model(load_checkpoint(path), dtype, 2).logits(tokens())
    assert distance(found, expected) <= (BOUND if dtype == "float32" else 0.05)
