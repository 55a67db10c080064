"""From the joint trainer into files: heads, an adapter, or a whole model."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.loading import HeadsCheckpoint, HostTensor
from medusa_native.loading.adapter_config import AdapterConfig
from medusa_native.loading.adapter_writer import write_adapter
from medusa_native.loading.casting import cast, to_bf16
from medusa_native.loading.heads import Layer
from medusa_native.loading.hf_config import hf_config
from medusa_native.loading.hf_writer import write_hf
from medusa_native.loading.rotary_rows import stored_rows
from medusa_native.loading.writing import folder_beside

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.loading import Checkpoint
    from medusa_native.training.recipe import HeadsSettings, LoraSettings

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


def heads_of(
    trainer: _core.JointTrainer, settings: HeadsSettings, token_map: npt.NDArray[np.int32] | None
) -> HeadsCheckpoint:
    """Return the trained heads in bfloat16."""
    weights = trainer.weights()

    def tensor(name: str) -> HostTensor:
        return to_bf16(np.ascontiguousarray(weights[name]))

    heads, layers = range(settings.num_heads), range(settings.num_layers)
    residual: list[list[Layer]] = [
        [(tensor(f"{h}.{i}.linear.weight"), tensor(f"{h}.{i}.linear.bias")) for i in layers]
        for h in heads
    ]
    projection = None
    if settings.version == 1:
        projection = [tensor(f"{h}.{settings.num_layers}.weight") for h in heads]
    return HeadsCheckpoint(residual, projection, token_map)


def save_adapter(
    folder: Path,
    trainer: _core.JointTrainer,
    lora: LoraSettings,
    backbone: Checkpoint,
    base_model: str,
) -> Path:
    """Write the adapter in PEFT's format, bfloat16, rows in Hugging Face's order."""
    weights = trainer.weights()
    factors = {}
    for name, down in weights.items():
        if not name.endswith(_A):
            continue
        module = name[len(_PREFIX) : -len(_A)]
        up = weights[_PREFIX + module + _B]
        factors[module] = (
            to_bf16(np.ascontiguousarray(down)),
            to_bf16(_hugging_face_rows(up, backbone, module)),
        )
    config = AdapterConfig(
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.targets,
        dropout=lora.dropout,
        base_model=base_model,
    )
    return write_adapter(folder, factors, config)


def require_describable(backbone: Checkpoint) -> None:
    """Raise ModelFormatError, before any work, for a model that `save_model` could not describe."""
    if not backbone.path.is_dir():
        hf_config(backbone)


def save_model(folder: Path, trainer: _core.JointTrainer, backbone: Checkpoint, dtype: str) -> Path:
    """Write all weights as a Hugging Face folder; it takes the place of an earlier one."""
    weights = trainer.weights()

    def weight(name: str, stored: str) -> HostTensor:
        return cast(name, HostTensor.from_array(weights[name]), stored)

    with folder_beside(folder) as new:
        write_hf(new, backbone, weight, dtype)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return folder


def _hugging_face_rows(
    up: npt.NDArray[np.float32], backbone: Checkpoint, module: str
) -> npt.NDArray[np.float32]:
    order = stored_rows(backbone.config, f"{module}.weight") if "." in module else None
    if order is None:
        return np.ascontiguousarray(up)
    out = np.empty(up.shape, dtype=np.float32)
    out[order] = up
    return out
