"""LoRA adapters in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.

Source of names and shapes: huggingface/peft, `utils/save_and_load.py` and `tuners/lora/layer.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.adapter_config import CONFIG_FILE, AdapterConfig, read_adapter_config
from medusa_native.loading.hub import resolve
from medusa_native.loading.safetensors_file import read_safetensors
from medusa_native.loading.shapes import backbone_tensors
from medusa_native.loading.tensors import HostTensor, require_finite, require_shape
from medusa_native.loading.torch_file import read_torch

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy.typing as npt

ADAPTER_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_READERS = ((ADAPTER_FILE, read_safetensors), ("adapter_model.bin", read_torch))
_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+?)\."
    r"(?:(?P<factor>lora_(?:embedding_)?[AB])(?:\.default)?(?:\.weight)?"
    r"|(?:base_layer\.|modules_to_save\.(?:default\.)?)?(?P<whole>weight|bias))"
)
# Medusa heads beside an adapter, and what modules_to_save replaces, kept by old versions of PEFT.
_IGNORED = re.compile(r"^base_model\.model\.(model\.)?medusa_heads?\.|\.original_module\.")
_PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class LowRank:
    """What is added to one weight: ``scale * up @ down``.

    Attributes
    ----------
    up
        float32 (rows of the weight, rank); PEFT's B.
    down
        float32 (rank, columns of the weight); PEFT's A.
    scale
        Alpha divided by the rank, or by its root.
    """

    up: npt.NDArray[np.float32]
    down: npt.NDArray[np.float32]
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits a model.

    Attributes
    ----------
    path
        The tensors' file.
    config
        What adapter_config.json says.
    factors
        Canonical name of a weight to what is added to it.
    replaced
        Canonical name to the weight that takes its place, before anything is added.
    """

    path: Path
    config: AdapterConfig
    factors: dict[str, LowRank] = field(default_factory=dict)
    replaced: dict[str, HostTensor] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return facts for people and logs, as plain types."""
        return {
            "path": str(self.path.parent),
            "rank": self.config.rank,
            "alpha": self.config.alpha,
            "adapted_weights": len(self.factors),
            "replaced_weights": sorted(self.replaced),
        }


def load_adapter(adapter: str | os.PathLike[str], model_config: dict[str, Any]) -> Adapter:
    """Read an adapter and hold it against a model.

    Parameters
    ----------
    adapter
        A folder in PEFT's format, or a hub id.
    model_config
        `Checkpoint.config` of the model it is for.

    Raises
    ------
    InvalidArgument
        Nothing is there.
    ModelFormatError
        A file is damaged, asks for what is not supported, or does not fit the model. The message
        names file, key or tensor, expected and found.
    """
    folder = resolve(adapter, (ADAPTER_FILE,), ("adapter_model.bin",))
    config = read_adapter_config(folder / CONFIG_FILE)
    path, tensors = _read(folder)
    found = Adapter(path, config)
    factors = _sort(found, tensors, _linear_shapes(model_config))
    for name, shape in _linear_shapes(model_config).items():
        if name in factors:
            found.factors[name] = _low_rank(found, name, shape, factors.pop(name))
    if not found.factors and not found.replaced:
        raise ModelFormatError(f"{path}: tensors of LoRA expected, found none")
    return found


def _linear_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Weights that an adapter may change. A tied lm_head is one of them."""
    shapes = {name: shape for name, shape, _ in backbone_tensors(config)}
    shapes.setdefault("lm_head.weight", shapes["model.embed_tokens.weight"])
    return shapes


def _read(folder: Path) -> tuple[Path, dict[str, HostTensor]]:
    for name, reader in _READERS:
        if (folder / name).is_file():
            path = folder / name
            return path, reader(path, lambda name: not _IGNORED.search(name))
    raise ModelFormatError(
        f"{folder}: one of {', '.join(name for name, _ in _READERS)} expected, found none"
    )


def _sort(
    adapter: Adapter, tensors: dict[str, HostTensor], shapes: dict[str, tuple[int, ...]]
) -> dict[str, dict[str, tuple[str, HostTensor]]]:
    """Keep whole weights; return factors by weight and letter, with the names they have."""
    factors: dict[str, dict[str, tuple[str, HostTensor]]] = {}
    for name, tensor in tensors.items():
        _require_plain(adapter.path, name, tensor)
        match = _NAME.fullmatch(name)
        module = match["module"] if match else ""
        weight = f"{module}.{(match and match['whole']) or 'weight'}"
        if match is None or weight not in shapes:
            raise ModelFormatError(
                f"{adapter.path}: tensor '{name}': LoRA of one of the model's linear layers "
                "expected, found none of that name"
            )
        role, taken = match["factor"], factors.get(weight, {})
        if role in taken or (role is None and weight in adapter.replaced):
            raise ModelFormatError(
                f"{adapter.path}: tensor '{name}': one name for {role or 'the whole'} of {weight} "
                "expected, found two"
            )
        if role is None:
            require_shape(adapter.path, name, tensor, shapes[weight])
            adapter.replaced[weight] = tensor
        else:
            _require_target(adapter, name, module)
            factors[weight] = taken | {role: (name, tensor)}
    return factors


def _require_plain(path: Path, name: str, tensor: HostTensor) -> None:
    if tensor.dtype not in _PLAIN:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must be one of {', '.join(_PLAIN)}, found {tensor.dtype}"
        )
    require_finite(path, name, tensor)


def _require_target(adapter: Adapter, name: str, module: str) -> None:
    if not adapter.config.targets_module(module):
        raise ModelFormatError(
            f"{adapter.path}: tensor '{name}': a module named by 'target_modules' expected, "
            f"{', '.join(adapter.config.targets)}; found {module}"
        )


def _low_rank(
    adapter: Adapter,
    weight: str,
    shape: tuple[int, ...],
    factors: dict[str, tuple[str, HostTensor]],
) -> LowRank:
    module = weight.removesuffix(".weight")
    kind = "lora_embedding_" if weight == "model.embed_tokens.weight" else "lora_"
    if {*factors} != {kind + "A", kind + "B"} or len(shape) != 2:
        raise ModelFormatError(
            f"{adapter.path}: tensors '{kind}A' and '{kind}B' of {module} expected, "
            f"found {', '.join(sorted(factors))}"
        )
    rank = adapter.config.rank_of(module)
    rows, columns = shape if kind == "lora_" else shape[::-1]  # a table is (vocabulary, hidden)
    down = _factor(adapter, factors[kind + "A"], (rank, columns))
    up = _factor(adapter, factors[kind + "B"], (rows, rank))
    scale = adapter.config.scale_of(module)
    return LowRank(up, down, scale) if kind == "lora_" else LowRank(down.T, up.T, scale)


def _factor(
    adapter: Adapter, named: tuple[str, HostTensor], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    name, tensor = named
    require_shape(adapter.path, name, tensor, shape)
    return tensor.to_float32()
