"""Finds and maps the files that hold Medusa heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.fields import Fields, read_json
from medusa_native.loading.heads_names import place_of
from medusa_native.loading.hf import shard_files
from medusa_native.loading.safetensors_file import read_safetensors
from medusa_native.loading.tensors import HostTensor
from medusa_native.loading.torch_file import read_torch

HUB_FILES = ("*.safetensors", "medusa_lm_head.pt", "adapter_model.bin")
_SINGLE = (
    "medusa_lm_head.safetensors",
    "medusa_lm_head.pt",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_TORCH = (".pt", ".bin", ".pth")


@dataclass
class HeadsFiles:
    """What was read.

    Attributes
    ----------
    path
        The file, or the folder when there are several.
    config
        config.json beside it; empty when there is none.
    tensors, files
        Name to tensor, and to the file it comes from; of heads only.
    others
        Names of the other tensors in these files.
    unread
        Files of heads in the folder that were passed over for these.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, HostTensor] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def is_vllm(self) -> bool:
        """Whether config.json is that of vLLM's MedusaModel."""
        return self.config.get("model_type") == "medusa"


def read_heads_files(path: Path) -> HeadsFiles:
    """Map the head tensors of a file or a folder.

    Raises
    ------
    ModelFormatError
        No file of heads is there, a shard is missing or damaged, or two hold the same tensor.
    """
    folder = path if path.is_dir() else path.parent
    config = dict(read_json(folder / "config.json").values) if _has_config(folder) else {}
    found = HeadsFiles(path, config)
    paths = _find(folder) if path.is_dir() else [path]
    found.path = paths[0] if len(paths) == 1 else folder
    found.unread = _unread(folder, paths) if path.is_dir() else []
    ranks = _ranks(paths)
    for file in paths:
        _add(found, file, joins=bool(ranks))
    if ranks:
        _require_ranks(found, folder, ranks)
    return found


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _find(folder: Path) -> list[Path]:
    for name in _SINGLE:
        if (folder / name).is_file():
            return [folder / name]
    ranks = sorted(folder.glob("rank*.safetensors"), key=lambda path: (len(path.name), path.name))
    if ranks:
        return ranks
    shards = shard_files(folder) or sorted(folder.glob("*.safetensors"))
    if not shards:
        expected = ", ".join((*_SINGLE, "rank0.safetensors", "model.safetensors"))
        raise ModelFormatError(f"{folder}: one of {expected} expected, found none")
    return shards


def _unread(folder: Path, read: list[Path]) -> list[str]:
    names = [path.name for path in read]
    return [name for name in _SINGLE if name not in names and (folder / name).is_file()]


def _add(found: HeadsFiles, file: Path, *, joins: bool) -> None:
    others: list[str] = []

    def wanted(name: str) -> bool:
        if place_of(name, found.is_vllm) is None:
            others.append(name)
            return False
        return True

    read: Callable[..., Mapping[str, HostTensor]] = (
        read_torch if file.suffix in _TORCH else read_safetensors
    )
    for name, tensor in read(file, wanted).items():
        if name in found.tensors and not joins:
            raise ModelFormatError(
                f"{file}: tensor '{name}' expected in one file, found in {found.files[name]} too"
            )
        before = found.tensors.get(name)
        found.tensors[name] = tensor if before is None else _join(file, name, before, tensor)
        found.files.setdefault(name, file)
    found.others += others


def _ranks(paths: list[Path]) -> list[str]:
    names = [path.name for path in paths]
    return names if names and names[0].startswith("rank") else []


def _require_ranks(found: HeadsFiles, folder: Path, names: list[str]) -> None:
    """Hold TensorRT-LLM's rank files against its config.json."""
    config = Fields(folder / "config.json", found.config)
    mapping = config.get_fields("mapping")
    size = mapping.get_int("tp_size", len(names))
    if mapping.get_int("pp_size", 1) != 1:
        raise mapping.fail("pp_size", "1: heads cut by layers are not supported")
    for rank in range(size):
        if f"rank{rank}.safetensors" not in names:
            raise ModelFormatError(
                f"{folder}: rank{rank}.safetensors expected (tensor parallel size {size}), found "
                f"{', '.join(names)}"
            )
    if len(names) != size:
        raise mapping.fail("tp_size", f"{len(names)}, the number of rank files")


def _join(file: Path, name: str, before: HostTensor, after: HostTensor) -> HostTensor:
    """Put a further rank's rows below; scales are the same on every rank."""
    if name.endswith("scaling_factor"):
        if (before.dtype, before.shape) != (after.dtype, after.shape) or not np.array_equal(
            before.data, after.data
        ):
            raise ModelFormatError(
                f"{file}: tensor '{name}' must hold the scale of rank 0, found another"
            )
        return before
    if before.dtype != after.dtype or before.shape[1:] != after.shape[1:] or not before.shape:
        raise ModelFormatError(
            f"{file}: tensor '{name}' must continue rank 0's {before.dtype} {before.shape}, "
            f"found {after.dtype} {after.shape}"
        )
    rows = before.shape[0] + after.shape[0]
    data = np.concatenate([before.data, after.data])
    return HostTensor(data, before.dtype, (rows, *before.shape[1:]))
