"""Weights from one plain type to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.loading.tensors import HostTensor

if TYPE_CHECKING:
    import numpy.typing as npt

PLAIN_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def to_bf16(array: npt.NDArray[np.float32]) -> HostTensor:
    """Round finite numbers to the nearest bfloat16, ties to even."""
    return HostTensor(bf16_bits(array).reshape(-1).view(np.uint8), "BF16", array.shape)


def bf16_bits(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even, of finite numbers."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    stored: npt.NDArray[np.uint16] = rounded.astype(np.uint16)
    return stored


def cast(name: str, tensor: HostTensor, dtype: str) -> HostTensor:
    """Return a weight as F32, F16 or BF16, rounded to nearest; itself where it has that type.

    Raises
    ------
    InvalidArgument
        A number is too large for the type. The message names the tensor.
    """
    if tensor.dtype == dtype:
        return tensor
    wide = tensor.to_float32()
    if dtype == "F32":
        return HostTensor.from_array(wide)
    result = to_bf16(wide) if dtype == "BF16" else _half(wide)
    if not np.isfinite(result.to_float32()).all():
        raise InvalidArgument(
            f"tensor '{name}' must hold numbers that fit {dtype}, found {np.abs(wide).max()}"
        )
    return result


def is_exact(tensor: HostTensor, dtype: str) -> bool:
    """Whether F32 numbers are the same in F32, F16 or BF16."""
    wide = tensor.to_float32()
    if dtype == "BF16":
        return not np.any(wide.view(np.uint32) & np.uint32(0xFFFF))
    return dtype == "F32" or np.array_equal(_half(wide).to_float32(), wide)


def _half(wide: npt.NDArray[np.float32]) -> HostTensor:
    with np.errstate(over="ignore"):
        return HostTensor.from_array(wide.astype(np.float16))
