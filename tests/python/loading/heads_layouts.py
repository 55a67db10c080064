"""Medusa heads in every layout found in the wild, all written from one set of matrices.

The numbers are FP8 codes times a power of two, so that every type from FP8 to float32 holds them
exactly and every layout must load to the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HIDDEN, VOCAB, HEADS = 64, 100, 3
SCALE = 2.0**-6
State = dict[str, torch.Tensor]
FLOAT8 = torch.float8_e4m3fn


def numbers(generator: np.random.Generator, *shape: int) -> torch.Tensor:
    """Random FP8 numbers times SCALE, as float32."""
    codes = generator.integers(0, 120, shape) + 128 * generator.integers(0, 2, shape)
    stored = torch.from_numpy(codes.astype(np.uint8)).view(FLOAT8)
    return stored.float() * SCALE


@dataclass(frozen=True)
class Truth:
    """What every layout holds: [head][layer] weight and bias, [head] projection."""

    weight: list[list[torch.Tensor]]
    bias: list[list[torch.Tensor]]
    projection: list[torch.Tensor]


def truth(layers: int = 1, heads: int = HEADS, hidden: int = HIDDEN, vocab: int = VOCAB) -> Truth:
    """Make the matrices."""
    rng = np.random.default_rng(5)
    return Truth(
        [[numbers(rng, hidden, hidden) for _ in range(layers)] for _ in range(heads)],
        [[numbers(rng, hidden) for _ in range(layers)] for _ in range(heads)],
        [numbers(rng, vocab, hidden) for _ in range(heads)],
    )


def named(heads: Truth, weight: str, bias: str, projection: str) -> State:
    """Name the matrices by templates with h, l (layer) and L (number of layers)."""
    state: State = {}
    for h, layers in enumerate(heads.weight):
        for k, matrix in enumerate(layers):
            state[weight.format(h=h, l=k)] = matrix
            state[bias.format(h=h, l=k)] = heads.bias[h][k]
        state[projection.format(h=h, L=len(layers))] = heads.projection[h]
    return state


def medusa_names(heads: Truth, prefix: str = "") -> State:
    """FasterDecoding's names."""
    block, projection = prefix + "{h}.{l}.linear.", prefix + "{h}.{L}.weight"
    return named(heads, block + "weight", block + "bias", projection)


def vllm_names(heads: Truth, prefix: str = "") -> State:
    """Names of vLLM's MedusaModel."""
    block = prefix + "blocks.{h}.layers.{l}."
    return named(heads, block + "weight", block + "bias", prefix + "lm_heads.{h}.weight")


def trtllm_names(heads: Truth) -> State:
    """Names in TensorRT-LLM's own checkpoints."""
    block = "medusa_heads.{h}.medusa_layers.{l}.linear."
    return named(heads, block + "weight", block + "bias", "medusa_heads.{h}.lm_head.weight")


def cast(state: State, dtype: torch.dtype) -> State:
    """Change the type of all."""
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def quantised(state: State, weight_scale: str, input_scale: str) -> State:
    """Store matrices in FP8 with a scale, biases in bfloat16."""
    result: State = {}
    for name, tensor in state.items():
        result[name] = tensor.to(torch.bfloat16)
        if name.endswith("weight"):
            result[name] = (tensor / SCALE).to(FLOAT8)
            stem = name.removesuffix("weight")
            result[stem + weight_scale] = torch.tensor(SCALE)
            result[stem + input_scale] = torch.tensor(0.5)
    return result


def write_config(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def backbone() -> State:
    """Tensors that a full model has beside its heads."""
    return {
        "model.embed_tokens.weight": torch.zeros(VOCAB, HIDDEN),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(8, HIDDEN),
        "lm_head.weight": torch.full((VOCAB, HIDDEN), torch.nan),
    }


def v01_pt(folder: Path, heads: Truth) -> None:
    torch.save(cast(medusa_names(heads), torch.bfloat16), folder / "medusa_lm_head.pt")
    write_config(folder, medusa_num_heads=2, medusa_num_layers=1, base_model_name_or_path="x/y")


def v01_safetensors(folder: Path, heads: Truth) -> None:
    save_file(medusa_names(heads), folder / "medusa_lm_head.safetensors")


def tgi(folder: Path, heads: Truth) -> None:
    state = cast(medusa_names(heads), torch.float16)
    save_file(state, folder / "medusa_lm_head.safetensors")
    write_config(folder, medusa_num_heads=len(heads.weight), medusa_num_layers=len(heads.weight[0]))


def lepton(folder: Path, heads: Truth) -> None:
    v01_pt(folder, heads)
    write_config(folder, base_model_name_or_path="N/A", decoding_strategy="tree_decoding")


def _sharded(folder: Path, state: State, save: Callable[..., None], name: str) -> None:
    names = list(state)
    halves = [names[::2], names[1::2]]
    weight_map = {}
    for index, half in enumerate(halves, 1):
        file = name.replace(".", f"-0000{index}-of-00002.", 1)
        save({key: state[key].contiguous() for key in half}, folder / file)
        weight_map |= dict.fromkeys(half, file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def full_bin(folder: Path, heads: Truth) -> None:
    state = backbone() | medusa_names(heads, "medusa_head.")
    _sharded(folder, cast(state, torch.float16), torch.save, "pytorch_model.bin")
    write_config(folder, model_type="llama", hidden_size=HIDDEN, vocab_size=VOCAB)


def full_safetensors(folder: Path, heads: Truth) -> None:
    state = backbone() | medusa_names(heads, "medusa_head.")
    _sharded(folder, cast(state, torch.bfloat16), save_file, "model.safetensors")
    write_config(folder, model_type="llama", hidden_size=HIDDEN, num_hidden_layers=32)


def vllm_config(heads: Truth) -> dict[str, Any]:
    return {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "num_heads": len(heads.weight),
        "num_hidden_layers": len(heads.weight[0]),
        "truncated_vocab_size": None,
        "medusa_fc_bias": True,
    }


def vllm(folder: Path, heads: Truth, prefix: str = "") -> None:
    save_file(cast(vllm_names(heads, prefix), torch.bfloat16), folder / "model.safetensors")
    write_config(folder, **vllm_config(heads))


def vllm_nested(folder: Path, heads: Truth) -> None:
    vllm(folder, heads, "medusa_heads.")


def _trtllm_config(heads: Truth, ranks: int) -> dict[str, Any]:
    return {
        "architecture": "MedusaForCausalLM",
        "num_medusa_heads": len(heads.weight),
        "num_medusa_layers": len(heads.weight[0]),
        "max_draft_len": 63,
        "hidden_act": "silu",
        "vocab_size": VOCAB,
        "mapping": {"world_size": ranks, "tp_size": ranks, "pp_size": 1},
    }


def trtllm(folder: Path, heads: Truth) -> None:
    state = cast(trtllm_names(heads), torch.float16)
    state["transformer.vocab_embedding.weight"] = torch.zeros(VOCAB, HIDDEN)
    save_file(state, folder / "rank0.safetensors")
    write_config(folder, **_trtllm_config(heads, 1))


def trtllm_ranks(folder: Path, heads: Truth) -> None:
    """Four ranks, each with a quarter of the rows; the vocabulary is padded to 104."""
    padded = [torch.cat([p, torch.zeros(4, HIDDEN)]) for p in heads.projection]
    state = trtllm_names(Truth(heads.weight, heads.bias, padded))
    for rank in range(4):
        part = {name: t.chunk(4)[rank].contiguous() for name, t in state.items()}
        save_file(part, folder / f"rank{rank}.safetensors")
    write_config(folder, **_trtllm_config(heads, 4))


def trtllm_fp8(folder: Path, heads: Truth) -> None:
    """Two ranks in FP8; both hold the whole scales."""
    state = quantised(trtllm_names(heads), "weights_scaling_factor", "activation_scaling_factor")
    for rank in range(2):
        cut = {
            n: t if n.endswith("factor") else t.chunk(2)[rank].contiguous()
            for n, t in state.items()
        }
        save_file(cut, folder / f"rank{rank}.safetensors")
    write_config(folder, **_trtllm_config(heads, 2))


def modelopt(folder: Path, heads: Truth) -> None:
    """FP8 beside a backbone, without an index, as NVIDIA's readers take it."""
    state = quantised(medusa_names(heads, "medusa_heads."), "weight_scale", "input_scale")
    save_file(state, folder / "heads.safetensors")
    save_file(backbone(), folder / "other.safetensors")
    write_config(folder, model_type="llama", vocab_size=VOCAB)


def modelopt_rows(folder: Path, heads: Truth) -> None:
    """FP8 with a scale for every row."""
    state = quantised(medusa_names(heads, "medusa_heads."), "weight_scale", "input_scale")
    for name in [name for name in state if name.endswith("weight_scale")]:
        rows = len(state[name.removesuffix("_scale")])
        state[name] = torch.full((rows, 1), SCALE)
    _sharded(folder, state | backbone(), save_file, "model.safetensors")


def peft(folder: Path, heads: Truth) -> None:
    """As `save_pretrained` writes it: without the adapter's name."""
    state = cast(medusa_names(heads, "base_model.model.medusa_head."), torch.bfloat16)
    lora = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(state | {lora: torch.zeros(8, HIDDEN)}, folder / "adapter_model.safetensors")


def peft_wrapped(folder: Path, heads: Truth) -> None:
    """A state dict of the wrapped model: with the adapter's name, and the untrained originals."""
    block, end = "base_model.model.medusa_head.{h}.", ".weight"
    wrapped = block + "modules_to_save.default."
    linear = wrapped + "{l}.linear."
    state = named(heads, linear + "weight", linear + "bias", wrapped + "{L}" + end)
    original = block + "original_module."
    linear = original + "{l}.linear."
    names = named(heads, linear + "weight", linear + "bias", original + "{L}" + end)
    state |= {name: torch.full_like(tensor, torch.nan) for name, tensor in names.items()}
    torch.save(state, folder / "adapter_model.bin")


# name: writer, family it is recognised as, part of a note that it must give rise to
LAYOUTS: dict[str, tuple[Callable[[Path, Truth], None], str, str]] = {
    "v0.1 pt": (v01_pt, "medusa", "medusa_num_heads 2"),
    "v0.1 safetensors": (v01_safetensors, "medusa", ""),
    "TGI": (tgi, "medusa", ""),
    "Lepton": (lepton, "medusa", ""),
    "v1.0 bin": (full_bin, "full model", "3 tensors of the files are not heads"),
    "v1.0 safetensors": (full_safetensors, "full model", "are not heads"),
    "vLLM": (vllm, "vllm", ""),
    "vLLM nested": (vllm_nested, "vllm", ""),
    "TensorRT-LLM": (trtllm, "tensorrt-llm", "are not heads"),
    "TensorRT-LLM ranks": (trtllm_ranks, "tensorrt-llm", "4 rows of padding"),
    "TensorRT-LLM FP8": (trtllm_fp8, "tensorrt-llm", "input scales are not used"),
    "ModelOpt FP8": (modelopt, "modelopt", "FP8 weights (E4M3) are widened"),
    "ModelOpt FP8 rows": (modelopt_rows, "modelopt", "input scales are not used"),
    "PEFT": (peft, "peft", "LoRA"),
    "PEFT wrapped": (peft_wrapped, "peft", ""),
}


def write_layout(folder: Path, layout: str, heads: Truth) -> Path:
    """Write `heads` in one of `LAYOUTS`."""
    folder.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout][0](folder, heads)
    return folder
