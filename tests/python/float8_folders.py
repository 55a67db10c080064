"""Tiny folders of FP8 weights in the layouts that users have, and what they mean, by torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_model import CONFIG, random_tensors, save_model

# Blocks of 128 that rows and columns of the first fill and those of the second do not.
SIZES = {"hidden_size": 256, "intermediate_size": 352, "head_dim": 64}
GROUP = {"targets": ["Linear"], "weights": {"type": "float", "num_bits": 8, "symmetric": True}}


def compressed(strategy: str, **weights: Any) -> dict[str, Any]:
    own = GROUP["weights"] | {"strategy": strategy} | weights  # type: ignore[operator]
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": GROUP | {"weights": own}},
        "ignore": ["lm_head"],
    }


@dataclass(frozen=True)
class Layout:
    """How a folder stores scales."""

    config: dict[str, Any]
    block: tuple[int | None, int | None]  # rows and columns; None: all
    suffix: str = "weight_scale"
    dtype: torch.dtype = torch.float32
    flat: bool = False  # one number, or one for each row, without a second axis
    unused: tuple[str, ...] = ("input_scale",)


BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
LAYOUTS = {
    "tensor": Layout(compressed("tensor"), (None, None), flat=True),
    "channel": Layout(compressed("channel"), (1, None), dtype=torch.bfloat16),
    "block": Layout(compressed("block", block_structure=[128, 128]), (128, 128)),
    "fbgemm": Layout({"quant_method": "fbgemm_fp8"}, (1, None), unused=("input_scale_ub",)),
    "fine-grained": Layout(BLOCKS, (128, 128), "weight_scale_inv", torch.bfloat16, unused=()),
    "vllm": Layout({"quant_method": "fp8", "activation_scheme": "static"}, (None, None), flat=True),
}


def quantize(
    weight: torch.Tensor, layout: Layout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return codes, scales and what they mean: float32, rounded once."""
    rows, columns = weight.shape
    height, width = layout.block[0] or rows, layout.block[1] or columns
    grid = -(-rows // height), -(-columns // width)
    scales = torch.empty(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            part = weight[i * height : (i + 1) * height, j * width : (j + 1) * width]
            scales[i, j] = part.abs().max() / 448
    stored = scales.to(layout.dtype)
    wide = stored.float().repeat_interleave(height, 0).repeat_interleave(width, 1)
    wide = wide[:rows, :columns]
    codes = (weight / wide).clamp(-448, 448).to(torch.float8_e4m3fn)
    flat = stored.reshape(()) if grid == (1, 1) else stored.reshape(-1)
    return codes, flat if layout.flat else stored, codes.float() * wide


def folders(path: Path, layout: Layout, seed: int = 0) -> tuple[Path, Path]:
    """Write a model with FP8 weights, and the same one with those widened to float32."""
    config = CONFIG | SIZES
    stored: dict[str, torch.Tensor] = {}
    wide = {}
    for name, array in random_tensors(config, seed).items():
        tensor = torch.from_numpy(array)
        if "_proj" not in name:
            stored[name] = wide[name] = tensor
            continue
        stored[name], scale, wide[name] = quantize(tensor, layout)
        stored[name.replace("weight", layout.suffix)] = scale
        for unused in layout.unused:
            stored[name.replace("weight", unused)] = torch.tensor(0.5)
    arrays = {name: tensor.numpy() for name, tensor in wide.items()}
    plain = save_model(path / "wide", tensors=arrays, **SIZES)
    folder = save_model(path / "fp8", tensors=arrays, **SIZES, quantization_config=layout.config)
    save_file(stored, folder / "model.safetensors")
    return folder, plain


def change_tensors(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Overwrite tensors of a folder; None removes one."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")


def change_quantization(folder: Path, **changes: Any) -> None:
    """Overwrite keys of config.json's quantization_config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= changes
    path.write_text(json.dumps(config))
