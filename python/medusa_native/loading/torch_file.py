"""PyTorch pickles (.pt, .bin), read by torch without running any code in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import reading
from medusa_native.loading.tensors import FLOAT8, HostTensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int32": "I32",
    "torch.int64": "I64",
    "torch.float8_e4m3fn": FLOAT8,
}


def read_torch(path: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, HostTensor]:
    """Map the tensors of a state dict.

    Raises
    ------
    ModelFormatError
        torch is not installed, or the file is not a state dict of supported types.
    """
    try:
        import torch
    except ImportError as error:
        raise ModelFormatError(
            f"{path}: reading this file needs PyTorch: pip install 'medusa-native[torch]', "
            "or convert the file to safetensors"
        ) from error
    with reading(path, "a PyTorch state dict"):
        state = _load(torch, path)
    if not isinstance(state, dict):
        raise ModelFormatError(f"{path}: must hold a state dict, found {type(state).__name__}")
    names = [name for name in state if isinstance(name, str) and wanted(name)]
    return {name: _tensor(torch, path, name, state[name]) for name in names}


def _load(torch: Any, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of the format before torch 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensor(torch: Any, path: Path, name: str, value: Any) -> HostTensor:
    dtype = _DTYPES.get(str(getattr(value, "dtype", type(value).__name__)))
    if dtype is None or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise ModelFormatError(
            f"{path}: entry '{name}' must be a dense tensor of "
            f"{', '.join(_DTYPES.values())}, found {getattr(value, 'dtype', type(value).__name__)}"
        )
    shape = tuple(value.shape)
    with reading(path, f"a PyTorch state dict (entry '{name}')"):
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return HostTensor(np.asarray(raw, dtype=np.uint8), dtype, shape)
