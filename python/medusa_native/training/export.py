"""From the backbone into the trainer, and from the trainer into a heads file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.loading import HeadsCheckpoint, HostTensor
from medusa_native.loading.casting import bf16_bits, to_bf16
from medusa_native.loading.heads import Layer

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.loading import Checkpoint
    from medusa_native.training.settings import TrainSettings

_ROWS_AT_ONCE = 4096


def draft_rows(
    backbone: Checkpoint, token_map: npt.NDArray[np.int32] | None
) -> npt.NDArray[np.float32]:
    """Return the backbone's lm_head rows that heads may name, float32 (draft vocabulary, hidden)."""
    tensors = backbone.tensors
    matrix = tensors.get("lm_head.weight") or tensors["model.embed_tokens.weight"]
    return (matrix if token_map is None else _select(matrix, token_map)).to_float32()


def embedding_table(backbone: Checkpoint, dtype: str) -> npt.NDArray[Any]:
    """Return the token embeddings, (vocabulary, hidden), in the compute type `dtype`.

    bfloat16 comes as uint16, converted some rows at a time; a table that is stored so is viewed.
    """
    stored = backbone.tensors["model.embed_tokens.weight"]
    if dtype == "float32" or stored.scales is not None:
        wide = stored.to_float32()
        return wide if dtype == "float32" else bf16_bits(wide)
    if stored.dtype == "BF16":
        return stored.data.view(np.uint16).reshape(stored.shape)
    out = np.empty(stored.shape, np.uint16)
    for first in range(0, len(out), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        out[rows] = bf16_bits(_select(stored, rows).to_float32())
    return out


def _select(matrix: HostTensor, rows: slice | npt.NDArray[np.int32]) -> HostTensor:
    if matrix.scales is not None:
        matrix = HostTensor.from_array(matrix.to_float32())
    stored = matrix.data.reshape(matrix.shape[0], -1)[rows]
    return HostTensor(stored.reshape(-1), matrix.dtype, (len(stored), matrix.shape[1]))


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
