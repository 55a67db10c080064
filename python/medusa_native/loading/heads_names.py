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

    Raises
    ------
    ModelFormatError
        A tensor is missing, claimed twice, or stands after the wrong layer.
    """
    sorter = _Sorter(path, shared)
    for name, tensor in tensors.items():
        sorter.take(name, tensor)
    return sorter.finish()


class _Sorter:
    """Collects tensors by role; `finish` holds them against each other."""

    def __init__(self, path: Path, shared: bool) -> None:
        self._path = path
        self._shared = shared
        self._result = HeadTensors()
        self._depths: dict[str, int] = {}  # projection's name -> layers it stands after

    def take(self, name: str, tensor: HostTensor) -> None:
        stem = _strip(name)
        if stem.endswith("_scale"):
            raise self._fail(f"'{name}': heads in F32, F16 or BF16 expected, found scaled FP8")
        for pattern in _RESIDUAL:
            if match := pattern.fullmatch(stem):
                self._put(match[3], int(match[1]), int(match[2]), name, tensor)
        if match := _NUMBERED_PROJECTION.fullmatch(stem):
            self._put("projection", int(match[1]), 0, name, tensor)
            self._depths[name] = int(match[2])
        if match := _NAMED_PROJECTION.fullmatch(stem):
            self._put("projection", int(match[1] or match[2]), 0, name, tensor)
        if stem == "lm_head.weight" and self._shared:
            self._put("projection", 0, 0, name, tensor)
        if stem == "token_map":
            self._result.token_map = tensor

    def finish(self) -> HeadTensors:
        self._count()
        if self._shared:
            self._share()
        self._require_projections()
        return self._result

    def _fail(self, problem: str) -> ModelFormatError:
        return ModelFormatError(f"{self._path}: tensor {problem}")

    def _put(self, role: str, head: int, layer: int, name: str, tensor: HostTensor) -> None:
        other = self._result.names.setdefault((role, head, layer), name)
        if other != name:
            raise self._fail(f"'{name}' and tensor '{other}' claim the same place")
        if role == "projection":
            self._result.projection[head] = tensor
        else:
            group = self._result.weight if role == "weight" else self._result.bias
            group[head, layer] = tensor

    def _count(self) -> None:
        """Take the counts from the keys, and require a weight at every place."""
        result = self._result
        blocks = [*result.weight, *result.bias]
        if not result.weight:
            raise self._fail("'0.0.linear.weight' or alike expected (Medusa heads), found none")
        result.num_heads = 1 + max(*(head for head, _ in blocks), *result.projection, 0)
        result.num_layers = 1 + max(layer for _, layer in blocks)
        for head in range(result.num_heads):
            for layer in range(result.num_layers):
                if (head, layer) not in result.weight:
                    raise self._fail(
                        f"'{head}.{layer}.linear.weight' expected ({result.num_heads} heads of "
                        f"{result.num_layers} layers), found none"
                    )

    def _share(self) -> None:
        result = self._result
        for head in range(1, result.num_heads if 0 in result.projection else 0):
            result.projection.setdefault(head, result.projection[0])
            result.names.setdefault(("projection", head, 0), result.names["projection", 0, 0])

    def _require_projections(self) -> None:
        result = self._result
        for name, depth in self._depths.items():
            if depth != result.num_layers:
                raise self._fail(
                    f"'{name}': a projection after {result.num_layers} layers expected, "
                    f"found one after {depth}"
                )
        for head in range(result.num_heads if result.projection else 0):
            if head not in result.projection:
                raise self._fail(
                    f"'{head}.{result.num_layers}.weight' expected because other heads have a "
                    "projection, found none"
                )
