"""Tensors as files store them: raw bytes, a type name and a logical shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from medusa_native.errors import ModelFormatError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from medusa_native.tokenizer import Tokenizer

DTYPES = (
    *("F32", "F16", "BF16", "I32", "I64"),
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)

FLOAT8 = "F8_E4M3"  # means something with its scales alone
_WEIGHT_DTYPES = frozenset(DTYPES) - {"I32", "I64"}


def block_size(dtype: str) -> tuple[int, int]:
    """Elements and bytes of one block of `dtype` (one element for plain types)."""
    if dtype == FLOAT8:
        return 1, 1
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
    return elements, size


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes a tensor takes when its rows are whole blocks."""
    elements, size = block_size(dtype)
    return math.prod(shape) // elements * size


@dataclass(frozen=True)
class HostTensor:
    """A tensor in host memory, usually a mapped file.

    Attributes
    ----------
    data
        The stored bytes, uint8 (num_bytes,), contiguous, read-only when mapped. The first byte is
        aligned to the element (block formats: to 2 bytes).
    dtype
        One of `DTYPES`, or `FLOAT8`.
    shape
        Logical row-major shape, (out_features, in_features) for weights.
    scales
        Of a backbone's `FLOAT8` weights: float32, one for each block of `scale_block` rows and
        columns; the last blocks may be cut short.
    scale_block
        Its rows and columns.
    """

    data: npt.NDArray[np.uint8]
    dtype: str
    shape: tuple[int, ...]
    scales: npt.NDArray[np.float32] | None = None
    scale_block: tuple[int, int] = (1, 1)

    @classmethod
    def from_array(cls, array: npt.NDArray[Any]) -> HostTensor:
        """View a float32, float16, int32 or int64 array."""
        dtype = {"f4": "F32", "f2": "F16", "i4": "I32", "i8": "I64"}[array.dtype.str[1:]]
        array = np.ascontiguousarray(array)
        return cls(array.reshape(-1).view(np.uint8), dtype, tuple(array.shape))

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return a widened copy of a weight, float32 of shape `shape`."""
        if self.dtype == "F32":
            return np.array(self.data.view(np.float32)).reshape(self.shape)
        if self.dtype == "F16":
            return np.asarray(self.data.view(np.float16), dtype=np.float32).reshape(self.shape)
        if self.dtype == "BF16":
            wide = np.asarray(self.data.view(np.uint16), dtype=np.uint32) << np.uint32(16)
            return np.asarray(wide.view(np.float32)).reshape(self.shape)
        if self.scales is not None:
            return _scaled(self, self.scales)
        return _dequantize(self)

    def to_int64(self) -> npt.NDArray[np.int64]:
        """Return a widened copy of an integer tensor, int64 of shape `shape`."""
        stored = self.data.view(np.int32 if self.dtype == "I32" else np.int64)
        return stored.astype(np.int64).reshape(self.shape)


def _scaled(tensor: HostTensor, scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from medusa_native.loading.float8 import NUMBERS

    (rows, columns), (height, width) = tensor.shape, tensor.scale_block
    wide = NUMBERS[tensor.data].reshape(rows, columns)
    for first in range(0, rows, height):
        across = np.repeat(scales[first // height], min(width, columns))[:columns]
        wide[first : first + height] *= across
    return wide


def _dequantize(tensor: HostTensor) -> npt.NDArray[np.float32]:
    from gguf import quants

    rows = tensor.data.reshape(-1, num_bytes(tensor.dtype, tensor.shape[-1:]))
    wide = quants.dequantize(rows, GGMLQuantizationType[tensor.dtype])
    return np.asarray(wide, dtype=np.float32).reshape(tensor.shape)


def aligned(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.uint8]:
    """Return `data` itself, or a copy where the file placed it off its element's alignment."""
    elements, size = block_size(dtype)
    alignment = 2 if elements > 1 else size
    return data if data.ctypes.data % alignment == 0 else data.copy()


def require_weight(path: Path, name: str, tensor: HostTensor) -> None:
    """Raise unless the tensor holds floating-point weights."""
    if tensor.dtype not in _WEIGHT_DTYPES and tensor.scales is None:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must hold weights (F32, F16, BF16 or a block format), "
            f"found {tensor.dtype}"
        )


def require_shape(path: Path, name: str, tensor: HostTensor, expected: tuple[int, ...]) -> None:
    """Raise unless the tensor has the expected shape."""
    if tensor.shape != expected:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must have shape {expected}, found {tensor.shape}"
        )


_EXPONENTS = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
_CHUNK = 1 << 22


def require_finite(path: Path, name: str, tensor: HostTensor) -> None:
    """Raise if a plain floating-point tensor holds NaN or infinity (all exponent bits set)."""
    bits, mask = _EXPONENTS[tensor.dtype]
    words = tensor.data.view(bits)
    for start in range(0, words.size, _CHUNK):
        if np.any(words[start : start + _CHUNK] & mask == mask):
            raise ModelFormatError(
                f"{path}: tensor '{name}' must hold finite numbers, found NaN or infinity"
            )


@dataclass(frozen=True)
class Checkpoint:
    """A backbone as read from disk: nothing is widened or copied yet.

    Attributes
    ----------
    config
        Keyword arguments of the native `ModelConfig`.
    tensors
        Canonical (Hugging Face) name to tensor; `lm_head.weight` is absent when it is tied.
    tokenizer
        The model's own tokenizer.
    path
        The file or folder it came from.
    """

    config: dict[str, Any]
    tensors: dict[str, HostTensor]
    tokenizer: Tokenizer
    path: Path
