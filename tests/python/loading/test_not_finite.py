"""Weights that are NaN or infinite are found, whatever they are stored as, and named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_model import CONFIG, random_tensors, save_model

from medusa_native import Decoder, ModelFormatError
from medusa_native.loading import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

GGUF_NAMES = {
    "token_embd.weight": "embed_tokens",
    "blk.0.attn_k.weight": r"layers\.0\.self_attn",
    "blk.1.ffn_up.weight": r"layers\.1\.mlp",
}
NAMES = ["model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.weight", "lm_head.weight"]


@pytest.mark.parametrize("name", GGUF_NAMES)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf(gguf: Callable[..., Path], dtype: str, name: str) -> None:
    """All bits of the last row set: every format has a NaN there, in its values or its scales."""
    import gguf as package

    path = gguf(dtype=dtype)
    (tensor,) = (t for t in package.GGUFReader(path).tensors if t.name == name)
    row_bytes = tensor.n_bytes // int(tensor.shape[1])
    content = bytearray(path.read_bytes())
    end = int(tensor.data_offset) + int(tensor.n_bytes)
    content[end - row_bytes : end] = b"\xff" * row_bytes
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=GGUF_NAMES[name]):
        Decoder(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*NAMES, "model.norm.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors(tmp_path: Path, dtype: torch.dtype, name: str, value: float) -> None:
    folder = save_model(tmp_path)
    state = {
        key: torch.from_numpy(tensor).to(dtype) for key, tensor in random_tensors(CONFIG, 0).items()
    }
    state[name].view(-1)[-1] = value
    save_file(state, folder / "model.safetensors")
    load_checkpoint(folder)  # nothing of it is read yet
    stem = name.removesuffix(".weight").replace("v_proj", "[qv]_proj")
    with pytest.raises(ModelFormatError, match=stem):
        Decoder(folder)
