"""Tensors of Medusa heads by role, and whether the set is complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import ModelFormatError
from medusa_native.loading.heads_names import Place, name_of, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medusa_native.loading.tensors import HostTensor

Key = tuple[str, int, int]  # role, head, layer


@dataclass
class HeadTensors:
    """Tensors of heads by (role, head, layer); projections and scales of theirs have layer 0.

    Attributes
    ----------
    path
        File or folder they came from.
    family
        A key of `heads_names.FAMILIES`.
    tensors, names
        What stands at a place, and its name in the file.
    files
        Name to file, for messages.
    """

    path: Path
    family: str = "medusa"
    tensors: dict[Key, HostTensor] = field(default_factory=dict)
    names: dict[Key, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    num_heads: int = 0
    num_layers: int = 0

    def role(self, role: str) -> dict[Key, HostTensor]:
        """Everything of one role."""
        return {key: tensor for key, tensor in self.tensors.items() if key[0] == role}

    def file(self, key: Key) -> Path:
        """Return the file that holds a tensor."""
        return self.files.get(self.names[key], self.path)

    def expected(self, role: str, head: int, layer: int = 0) -> str:
        """Return the name that this family gives a place."""
        return name_of(self.family, role, head, layer, self.num_layers)


def sort_tensors(
    path: Path,
    tensors: Mapping[str, HostTensor],
    *,
    files: Mapping[str, Path] | None = None,
    own_lm_head: bool = False,
    shared: bool = False,
) -> HeadTensors:
    """Give every tensor its role and check that the set is complete.

    Parameters
    ----------
    path
        Where they came from, for messages.
    tensors
        Name in the file to tensor.
    files
        Name to file, where there are several.
    own_lm_head
        Whether a plain `lm_head.weight` belongs to the heads.
    shared
        Whether one projection serves all heads (vLLM's `original_lm_head`).

    Raises
    ------
    ModelFormatError
        A tensor is missing, claimed twice, unknown, stands after the wrong layer, or comes from
        another family than the others.
    """
    sorter = _Sorter(HeadTensors(path, files=files or {}))
    for name, tensor in tensors.items():
        place = place_of(name, own_lm_head)
        if place is not None:
            sorter.take(name, tensor, place)
    return sorter.finish(shared)


class _Sorter:
    """Collects tensors by role; `finish` holds them against each other."""

    def __init__(self, result: HeadTensors) -> None:
        self._result = result
        self._families: dict[str, str] = {}  # family -> first name of it
        self._depths: dict[str, int] = {}  # projection's name -> layers it stands after

    def take(self, name: str, tensor: HostTensor, place: Place) -> None:
        if place.role == "unknown":
            raise self._fail(
                name,
                f"'{name}': weights, biases, projections without bias and FP8 scales of heads "
                "expected, found a part that is not known",
            )
        if place.family:
            self._families.setdefault(place.family, name)
        if place.depth is not None:
            self._depths[name] = place.depth
        self._put((place.role, place.head, place.layer), name, tensor)

    def finish(self, shared: bool) -> HeadTensors:
        self._require_one_family()
        self._count()
        self._require_weights()
        self._require_depths()
        self._share(shared)
        self._require_projections()
        return self._result

    def _fail(self, name: str, problem: str) -> ModelFormatError:
        return ModelFormatError(f"{self._result.files.get(name, self._result.path)}: {problem}")

    def _put(self, key: Key, name: str, tensor: HostTensor) -> None:
        other = self._result.names.setdefault(key, name)
        if other != name:
            raise self._fail(
                name, f"tensor '{name}' and tensor '{other}' claim the same place; one expected"
            )
        self._result.tensors[key] = tensor

    def _require_one_family(self) -> None:
        if len(self._families) > 1:
            (first, name), (second, other) = list(self._families.items())[:2]
            raise self._fail(
                other,
                f"tensor '{other}': names of one family expected, found {second} beside {first} "
                f"('{name}')",
            )
        self._result.family = next(iter(self._families), "medusa")

    def _count(self) -> None:
        """Take the counts from the names."""
        result = self._result
        heads = [key[1] for key in result.tensors if key[0] in ("weight", "bias", "projection")]
        layers = [key[2] for key in result.tensors if key[0] in ("weight", "bias")]
        if not result.role("weight"):
            raise self._fail(
                "", "tensor '0.0.linear.weight' or alike expected (Medusa heads), found none"
            )
        result.num_heads, result.num_layers = 1 + max(heads), 1 + max(layers)

    def _require_weights(self) -> None:
        result = self._result
        for head in range(result.num_heads):
            for layer in range(result.num_layers):
                if ("weight", head, layer) not in result.tensors:
                    raise self._fail(
                        "",
                        f"tensor '{result.expected('weight', head, layer)}' expected "
                        f"({result.num_heads} heads of {result.num_layers} layers), found none",
                    )

    def _require_depths(self) -> None:
        for name, depth in self._depths.items():
            if depth != self._result.num_layers:
                raise self._fail(
                    name,
                    f"tensor '{name}': a projection after {self._result.num_layers} layers "
                    f"expected, found one after {depth}",
                )

    def _share(self, shared: bool) -> None:
        """Let one projection stand for all heads."""
        result = self._result
        own, common = ("projection", 0, 0), ("lm_head", 0, 0)
        numbered = result.role("projection")
        if common in result.tensors and not numbered:
            result.tensors[own], result.names[own] = result.tensors[common], result.names[common]
        elif not (shared and list(numbered) == [own]):
            return
        for head in range(1, result.num_heads):
            key = ("projection", head, 0)
            result.tensors[key], result.names[key] = result.tensors[own], result.names[own]

    def _require_projections(self) -> None:
        result = self._result
        present = result.role("projection")
        for head in range(result.num_heads if present else 0):
            if ("projection", head, 0) not in present:
                raise self._fail(
                    "",
                    f"tensor '{result.expected('projection', head)}' expected because other heads "
                    "have a projection, found none",
                )
