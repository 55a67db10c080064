"""From the backbone into the trainer, and from the trainer into a heads file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medusa_native.loading import HeadsCheckpoint, HostTensor
from medusa_native.loading.casting import to_bf16
from medusa_native.loading.heads import Layer

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.loading import Checkpoint
    from medusa_native.training.settings import TrainSettings


def draft_rows(
    backbone: Checkpoint, token_map: npt.NDArray[np.int32] | None
) -> npt.NDArray[np.float32]:
    """Return the backbone's lm_head rows that heads may name, float32 (draft vocabulary, hidden)."""
    tensors = backbone.tensors
    matrix = tensors.get("lm_head.weight") or tensors["model.embed_tokens.weight"]
    if token_map is None:
        return matrix.to_float32()
    stored = matrix.data.reshape(matrix.shape[0], -1)[token_map]
    rows = HostTensor(stored.reshape(-1), matrix.dtype, (len(token_map), matrix.shape[1]))
    return rows.to_float32()


def heads_of(
    trainer: _core.Trainer, settings: TrainSettings, token_map: npt.NDArray[np.int32] | None
) -> HeadsCheckpoint:
    """Return the trained heads in bfloat16."""
    weights = trainer.weights()
    residual: list[list[Layer]] = [
        [
            (
                to_bf16(weights[f"{head}.{layer}.linear.weight"]),
                to_bf16(weights[f"{head}.{layer}.linear.bias"]),
            )
            for layer in range(settings.num_layers)
        ]
        for head in range(settings.num_heads)
    ]
    projection = None
    if settings.version == 1:
        names = [f"{head}.{settings.num_layers}.weight" for head in range(settings.num_heads)]
        projection = [to_bf16(weights[name]) for name in names]
    return HeadsCheckpoint(residual, projection, token_map)
