"""Names of Medusa head tensors in the wild.

Sources: FasterDecoding/Medusa (`{h}.{l}.linear.weight`, `{h}.{L}.weight`, with or without a
`medusa_head.` prefix), PEFT adapters of it, vLLM (`blocks.{h}.layers.{l}.weight`,
`lm_heads.{h}.weight`, `token_map`), TensorRT-LLM (`{h}.medusa_layers.{l}.linear.weight`,
`{h}.lm_head.weight`), ModelOpt (scales beside FP8 weights, which are refused).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medusa_native.errors import ModelFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from medusa_native.loading.tensors import HostTensor

_PREFIX = re.compile(r"^(?:base_model\.model\.|model\.|medusa_heads?\.|heads\.)+")
_ADAPTER = re.compile(r"\.modules_to_save\.[^.]+\.")

_RESIDUAL = tuple(
    re.compile(pattern + r"\.(weight|bias|weight_scale|input_scale)")
    for pattern in (
        r"(\d{1,4})\.(\d{1,4})\.linear",
        r"(\d{1,4})\.medusa_layers\.(\d{1,4})\.linear",
        r"blocks\.(\d{1,4})\.layers\.(\d{1,4})",
    )
)
_NUMBERED_PROJECTION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(weight|weight_scale|input_scale)")
_NAMED_PROJECTION = re.compile(r"(?:(\d{1,4})\.lm_head|lm_heads\.(\d{1,4}))\.weight")


@dataclass
class HeadTensors:
    """Tensors of heads by role.

    `weight` and `bias` are keyed by (head, layer), `projection` by head; `names` maps (role, head,
    layer) to the name in the file, for messages.
    """

    weight: dict[tuple[int, int], HostTensor] = field(default_factory=dict)
    bias: dict[tuple[int, int], HostTensor] = field(default_factory=dict)
    projection: dict[int, HostTensor] = field(default_factory=dict)
    token_map: HostTensor | None = None
    names: dict[tuple[str, int, int], str] = field(default_factory=dict)
    num_heads: int = 0
    num_layers: int = 0


def _strip(name: str) -> str:
    return _PREFIX.sub("", _ADAPTER.sub(".", name))


def is_head_tensor(name: str) -> bool:
    """Whether a tensor of this name belongs to Medusa heads, or may do so."""
    if ".original_module." in name:
        return False
    stem = _strip(name)
    patterns = (*_RESIDUAL, _NUMBERED_PROJECTION, _NAMED_PROJECTION)
    plain = stem in ("token_map", "lm_head.weight")
    return plain or any(pattern.fullmatch(stem) for pattern in patterns)


def sort_tensors(path: Path, tensors: dict[str, HostTensor], shared: bool) -> HeadTensors:
    """Give every tensor its role and check that the set is complete.

    Parameters
    ----------
    path
        Where they came from, for messages.
    tensors
        Name in the file to tensor.
    shared
        Whether one projection serves all heads (vLLM's `original_lm_head`).
    """
    result = HeadTensors()
    depths: dict[int, tuple[int, str]] = {}
    for name, tensor in tensors.items():
        _assign(path, result, depths, name, tensor, shared)
    _count(path, result)
    if shared and 0 in result.projection:
        for head in range(1, result.num_heads):
            result.projection.setdefault(head, result.projection[0])
            result.names.setdefault(("projection", head, 0), result.names["projection", 0, 0])
    _require_projections(path, result, depths)
    return result


def _assign(
    path: Path,
    result: HeadTensors,
    depths: dict[int, tuple[int, str]],
    name: str,
    tensor: HostTensor,
    shared: bool,
) -> None:
    stem = _strip(name)
    if stem.endswith("_scale"):
        raise ModelFormatError(
            f"{path}: tensor '{name}': heads in F32, F16 or BF16 expected, found scaled FP8"
        )
    for pattern in _RESIDUAL:
        match = pattern.fullmatch(stem)
        if match:
            _put(path, result, match[3], int(match[1]), int(match[2]), name, tensor)
    numbered = _NUMBERED_PROJECTION.fullmatch(stem)
    if numbered:
        _put(path, result, "projection", int(numbered[1]), 0, name, tensor)
        depths[int(numbered[1])] = int(numbered[2]), name
    named = _NAMED_PROJECTION.fullmatch(stem)
    if named:
        _put(path, result, "projection", int(named[1] or named[2]), 0, name, tensor)
    if stem == "lm_head.weight" and shared:
        _put(path, result, "projection", 0, 0, name, tensor)
    if stem == "token_map":
        result.token_map = tensor


def _put(
    path: Path,
    result: HeadTensors,
    role: str,
    head: int,
    layer: int,
    name: str,
    tensor: HostTensor,
) -> None:
    other = result.names.setdefault((role, head, layer), name)
    if other != name:
        raise ModelFormatError(f"{path}: tensors '{other}' and '{name}' claim the same place")
    if role == "projection":
        result.projection[head] = tensor
    else:
        (result.weight if role == "weight" else result.bias)[head, layer] = tensor


def _count(path: Path, result: HeadTensors) -> None:
    if not result.weight:
        raise ModelFormatError(
            f"{path}: Medusa heads with tensors such as '0.0.linear.weight' expected, found none"
        )
    keys = [*result.weight, *result.bias, *((head, 0) for head in result.projection)]
    result.num_heads = 1 + max(head for head, _ in keys)
    result.num_layers = 1 + max(layer for _, layer in [*result.weight, *result.bias])
    for head in range(result.num_heads):
        for layer in range(result.num_layers):
            if (head, layer) not in result.weight:
                raise ModelFormatError(
                    f"{path}: tensor '{head}.{layer}.linear.weight' expected "
                    f"({result.num_heads} heads of {result.num_layers} layers), found none"
                )


def _require_projections(
    path: Path, result: HeadTensors, depths: dict[int, tuple[int, str]]
) -> None:
    for depth, name in depths.values():
        if depth != result.num_layers:
            raise ModelFormatError(
                f"{path}: tensor '{name}': a projection after {result.num_layers} layers expected, "
                f"found one after {depth}"
            )
    if not result.projection:
        return
    for head in range(result.num_heads):
        if head not in result.projection:
            raise ModelFormatError(
                f"{path}: tensor '{head}.{result.num_layers}.weight' expected because other heads "
                "have a projection, found none"
            )
