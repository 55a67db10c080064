"""Mapped safetensors files.

The `safetensors` library checks the header and maps BF16 to nothing NumPy knows, so it is used as
the judge of the file and the bytes are taken from our own map.
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from medusa_native.errors import ModelFormatError
from medusa_native.json_text import parse_json
from medusa_native.loading.fields import reading
from medusa_native.loading.tensors import FLOAT8, HostTensor, aligned, num_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PLAIN = ("F32", "F16", "BF16", "I32", "I64", FLOAT8)


def read_safetensors(
    path: Path, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, HostTensor]:
    """Map the tensors of a safetensors file.

    Parameters
    ----------
    path
        The file.
    wanted
        Which names to return; the others may have any type.

    Raises
    ------
    ModelFormatError
        The file is damaged, or a wanted tensor has a type that is not supported.
    """
    with reading(path, "safetensors"):
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(length))
        data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))[8 + length :]
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, info, data) for name, info in header.items() if wanted(name)}


def _tensor(path: Path, name: str, info: dict[str, Any], data: Any) -> HostTensor:
    dtype, shape = info["dtype"], tuple(info["shape"])
    if dtype not in _PLAIN:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must be one of {', '.join(_PLAIN)}, found {dtype}"
        )
    begin, end = info["data_offsets"]
    if end - begin != num_bytes(dtype, shape) or end > len(data):
        raise ModelFormatError(
            f"{path}: tensor '{name}' of {dtype} {shape} must take {num_bytes(dtype, shape)} bytes, "
            f"found {min(end, len(data)) - begin}"
        )
    return HostTensor(aligned(data[begin:end], dtype), dtype, shape)
