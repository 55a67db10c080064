"""The order of rows in query and key weights: halves one after the other, or interleaved.

Hugging Face rotates channel i of a head with channel i + dim / 2; GGUF files of the llama
architecture hold these two next to each other, for that is how llama.cpp rotates them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medusa_native.loading.tensors import HostTensor

Order = npt.NDArray[np.int64] | None

_HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def interleaved_rows(config: dict[str, Any], name: str) -> Order:
    """Which of Hugging Face's rows each interleaved row is; None: they are the same."""
    module = name.split(".")[-2]
    if module not in _HEADS:
        return None
    heads, dim = config[_HEADS[module]], config["head_dim"]
    halves = np.arange(heads * dim).reshape(heads, 2, dim // 2)
    return np.asarray(halves.swapaxes(1, 2).reshape(-1))


def stored_rows(config: dict[str, Any], name: str) -> Order:
    """Which of Hugging Face's rows each row of a model's weight, as it is stored, is."""
    return interleaved_rows(config, name) if config["rope_interleaved"] else None


def reordered(tensor: HostTensor, order: Order) -> HostTensor:
    """Return a tensor with rows taken in another order."""
    if order is None:
        return tensor
    rows = tensor.data.reshape(tensor.shape[0], -1)[order]
    return HostTensor(rows.reshape(-1), tensor.dtype, tensor.shape)
