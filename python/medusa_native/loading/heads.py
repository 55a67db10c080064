"""Medusa heads as read from disk, whatever their layout.

Rules: counts come from the tensors' names, never from config.json, because published files
contradict their own configuration; a missing bias is zero; heads without any projection use the
backbone's (V2), heads of which some have one are damaged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.checkpoint import resolve
from medusa_native.loading.fields import read_json
from medusa_native.loading.heads_names import HeadTensors, is_head_tensor, sort_tensors
from medusa_native.loading.hf import read_shards
from medusa_native.loading.safetensors_file import read_safetensors
from medusa_native.loading.tensors import (
    HostTensor,
    require_finite,
    require_shape,
    require_weight,
)
from medusa_native.loading.torch_file import read_torch

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

_HUB_FILES = ("*.safetensors", "medusa_lm_head.pt")
_MAX_PADDING = 1024  # rows by which exporters round a vocabulary up

Layer = tuple[HostTensor, HostTensor | None]


@dataclass(frozen=True)
class HeadsCheckpoint:
    """Medusa heads as read from disk.

    Attributes
    ----------
    residual
        [head][layer] -> weight (hidden, hidden) and bias (hidden) or None.
    projection
        [head] -> weight (draft_vocab, hidden); None for V2 heads, which use the backbone's lm_head.
    token_map
        int32 (draft_vocab,), draft id to token id; None: the whole vocabulary in order.
    config
        What config.json beside the tensors says, for information.
    path
        The file or folder they came from.
    """

    residual: list[list[Layer]]
    projection: list[HostTensor] | None = None
    token_map: npt.NDArray[np.int32] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return len(self.residual)

    @property
    def num_layers(self) -> int:
        """Residual blocks of each head."""
        return len(self.residual[0])

    @property
    def version(self) -> int:
        """1: heads have their own projections; 2: they use the backbone's."""
        return 2 if self.projection is None else 1


def load_heads(
    source: str | os.PathLike[str], hidden_size: int, vocab_size: int
) -> HeadsCheckpoint:
    """Read Medusa heads without copying them.

    Parameters
    ----------
    source
        A `.safetensors` or `.pt` file, a folder, or a hub id.
    hidden_size, vocab_size
        Of the backbone they are meant for.

    Raises
    ------
    InvalidArgument
        Nothing is there.
    ModelFormatError
        The file is damaged, incomplete, not finite, or made for another model. The message names
        file, tensor, expected and found.
    """
    path, folder = _locate(resolve(source, _HUB_FILES))
    config = dict(read_json(folder / "config.json").values) if _has_config(folder) else {}
    shared = config.get("model_type") == "medusa" and config.get("original_lm_head") is True
    tensors = sort_tensors(path, _read(path), shared)
    _compare(path, config, tensors)
    residual = _residual(path, tensors, hidden_size)
    token_map = _token_map(path, tensors.token_map, vocab_size)
    rows = vocab_size if token_map is None else token_map.size
    projection = _projection(path, tensors, rows, hidden_size)
    _require_finite(path, tensors)
    return HeadsCheckpoint(residual, projection, token_map, config, path)


def _locate(path: Path) -> tuple[Path, Path]:
    """Find the file or folder that holds the tensors, and the folder of config.json."""
    if not path.is_dir():
        return path, path.parent
    for name in ("medusa_lm_head.safetensors", "medusa_lm_head.pt"):
        if (path / name).is_file():
            return path / name, path
    return path, path


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _read(path: Path) -> dict[str, HostTensor]:
    if path.is_dir():
        return read_shards(path, is_head_tensor)
    if path.suffix in (".pt", ".bin", ".pth"):
        return read_torch(path, is_head_tensor)
    return read_safetensors(path, is_head_tensor)


def _compare(path: Path, config: dict[str, Any], tensors: HeadTensors) -> None:
    """Warn where config.json and the tensors disagree. The tensors are right."""
    counts = {"medusa_num_heads": tensors.num_heads, "medusa_num_layers": tensors.num_layers}
    for key, found in counts.items():
        if config.get(key, found) != found:
            warnings.warn(
                f"{path}: config.json says {key} {config[key]!r}; the tensors hold {found}, which "
                "is what counts",
                stacklevel=3,
            )


def _residual(path: Path, tensors: HeadTensors, hidden: int) -> list[list[Layer]]:
    for (head, layer), weight in tensors.weight.items():
        _check(path, tensors.names["weight", head, layer], weight, (hidden, hidden))
        bias = tensors.bias.get((head, layer))
        if bias is not None:
            _check(path, tensors.names["bias", head, layer], bias, (hidden,))
    return [
        [(tensors.weight[h, k], tensors.bias.get((h, k))) for k in range(tensors.num_layers)]
        for h in range(tensors.num_heads)
    ]


def _check(path: Path, name: str, tensor: HostTensor, shape: tuple[int, ...]) -> None:
    require_weight(path, name, tensor)
    require_shape(path, name, tensor, shape)


def _projection(
    path: Path, tensors: HeadTensors, rows: int, hidden: int
) -> list[HostTensor] | None:
    if not tensors.projection:
        return None
    result = []
    for head in range(tensors.num_heads):
        tensor = tensors.projection[head]
        if tensors.token_map is None:
            tensor = _without_padding(tensor, rows)
        _check(path, tensors.names["projection", head, 0], tensor, (rows, hidden))
        result.append(tensor)
    return result


def _without_padding(tensor: HostTensor, rows: int) -> HostTensor:
    if len(tensor.shape) != 2 or not rows < tensor.shape[0] <= rows + _MAX_PADDING:
        return tensor
    row_bytes = tensor.data.size // tensor.shape[0]
    return HostTensor(tensor.data[: rows * row_bytes], tensor.dtype, (rows, tensor.shape[1]))


def _token_map(path: Path, tensor: HostTensor | None, vocab: int) -> npt.NDArray[np.int32] | None:
    if tensor is None:
        return None
    if tensor.dtype not in ("I32", "I64") or len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise ModelFormatError(
            f"{path}: tensor 'token_map' must be a list of I32 or I64, "
            f"found {tensor.dtype} {tensor.shape}"
        )
    ids = tensor.to_int64()
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab:
        raise ModelFormatError(
            f"{path}: tensor 'token_map' must hold ids in [0, {vocab}), found {low} to {high}"
        )
    if np.unique(ids).size != ids.size:
        raise ModelFormatError(f"{path}: tensor 'token_map' must hold each id once, found repeats")
    return ids.astype(np.int32)


def _require_finite(path: Path, tensors: HeadTensors) -> None:
    groups = (("weight", tensors.weight), ("bias", tensors.bias))
    for role, group in groups:
        for (head, layer), tensor in group.items():
            require_finite(path, tensors.names[role, head, layer], tensor)
    for head, tensor in tensors.projection.items():
        require_finite(path, tensors.names["projection", head, 0], tensor)
