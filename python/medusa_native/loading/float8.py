"""FP8 weights (E4M3) and their scales, widened to float32.

Format: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", the variant without infinities;
ModelOpt and TensorRT-LLM multiply the stored number by `weight_scale` in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.tensors import FLOAT8, HostTensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from medusa_native.loading.heads_tensors import HeadTensors, Key

_SCALE_OF = {"weight": "weight_scale", "projection": "projection_scale"}


def _numbers() -> npt.NDArray[np.float32]:
    """Float32 (256,): the number each byte stands for."""
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, code & 7
    normal = np.ldexp(1 + fraction / 8, exponent - 7)
    magnitude = np.where(exponent == 0, np.ldexp(fraction / 8, -6), normal)
    magnitude[code & 127 == 127] = np.nan
    return np.where(code >= 128, -magnitude, magnitude).astype(np.float32)


NUMBERS = _numbers()


def widen(tensor: HostTensor, scale: npt.NDArray[np.float32]) -> HostTensor:
    """Return stored number times scale, rounded once, as F32.

    Parameters
    ----------
    tensor
        F8_E4M3 (rows, columns).
    scale
        Float32, one number or one a row: (1,) or (rows,).
    """
    wide = NUMBERS[tensor.data].reshape(tensor.shape)
    with np.errstate(over="ignore"):
        wide *= scale[:, None]
    return HostTensor.from_array(wide)


def widen_heads(heads: HeadTensors) -> int:
    """Replace FP8 weights of heads by float32 ones; return how many there were.

    Raises
    ------
    ModelFormatError
        FP8 weights have no scale, a scale is not positive, has a wrong shape or type, or belongs
        to no FP8 weight.
    """
    count = 0
    for role, scale_role in _SCALE_OF.items():
        for _, head, layer in heads.role(scale_role):
            _require_float8(heads, (role, head, layer), (scale_role, head, layer))
        for key, tensor in heads.role(role).items():
            if tensor.dtype == FLOAT8:
                heads.tensors[key] = widen(tensor, _scale(heads, key, (scale_role, *key[1:])))
                count += 1
    return count


def _require_float8(heads: HeadTensors, key: Key, scale: Key) -> None:
    found = heads.tensors[key].dtype if key in heads.tensors else "none"
    if found != FLOAT8:
        raise ModelFormatError(
            f"{heads.file(scale)}: tensor '{heads.names[scale]}': {FLOAT8} weights to scale "
            f"expected, found {found}"
        )


def _scale(heads: HeadTensors, key: Key, scale: Key) -> npt.NDArray[np.float32]:
    path, name = heads.file(key), heads.names[key]
    if len(heads.tensors[key].shape) != 2:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must have 2 axes, found shape {heads.tensors[key].shape}"
        )
    if scale not in heads.tensors:
        raise ModelFormatError(
            f"{path}: tensor '{name}' of {FLOAT8}: a weight_scale beside it expected, found none"
        )
    rows = heads.tensors[key].shape[:1]
    return _checked(heads.file(scale), heads.names[scale], heads.tensors[scale], rows)


def _checked(
    path: Path, name: str, tensor: HostTensor, rows: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    if tensor.dtype not in ("F32", "F16", "BF16") or tensor.shape not in _shapes(rows):
        raise ModelFormatError(
            f"{path}: tensor '{name}' must be one number, or one for each of {rows} rows, in F32, "
            f"F16 or BF16, found {tensor.dtype} {tensor.shape}"
        )
    scale = tensor.to_float32().reshape(-1)
    bad = scale[~(np.isfinite(scale) & (scale > 0))]
    if bad.size:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must hold positive finite scales, found {bad[0]}"
        )
    return scale


def _shapes(rows: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return ((), (1,), (1, 1), rows, (*rows, 1))
