"""Adapters merged into a backbone's weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.casting import cast
from medusa_native.loading.rotary_rows import Order, reordered, stored_rows
from medusa_native.loading.tensors import Checkpoint, HostTensor, num_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.loading.adapter import Adapter, LowRank

_CHUNK = 1 << 24  # numbers widened at a time
_EMBEDDING, _LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"


def with_adapter(checkpoint: Checkpoint, adapter: Adapter, dtype: str) -> Checkpoint:
    """Return a backbone with an adapter merged in: ``W + scale * up @ down``, rounded once.

    Parameters
    ----------
    checkpoint
        Stays as it is.
    adapter
        Read for this model.
    dtype
        F32, F16 or BF16: what every weight that the adapter touches becomes, quantised ones too.
        The others keep their type.

    Returns
    -------
    Checkpoint
        With an lm_head of its own where embedding and lm_head were tied and one of them changed.

    Raises
    ------
    ModelFormatError
        A merged weight is not finite.
    """
    separate = untied(checkpoint, adapter)
    merged = {name: merged_weight(separate, adapter, name, dtype) for name in touched(adapter)}
    return replace(separate, tensors=separate.tensors | merged)


def touched(adapter: Adapter) -> list[str]:
    """Names of the weights that are not the model's own any more."""
    return sorted({*adapter.factors, *adapter.replaced})


def untied(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """Make two matrices of tied embedding and lm_head where the adapter changes one of them."""
    ends = {_EMBEDDING, _LM_HEAD}
    if not (checkpoint.config["tie_word_embeddings"] and ends & {*touched(adapter)}):
        return checkpoint
    return replace(
        checkpoint,
        config=checkpoint.config | {"tie_word_embeddings": False},
        tensors=checkpoint.tensors | {_LM_HEAD: checkpoint.tensors[_EMBEDDING]},
    )


def merged_weight(checkpoint: Checkpoint, adapter: Adapter, name: str, dtype: str) -> HostTensor:
    """Return one touched weight of an `untied` backbone, in the order its file has."""
    base = checkpoint.tensors.get(name)
    if base is None:
        raise ModelFormatError(
            f"{adapter.path}: tensor '{name}' of the model expected, found none to adapt"
        )
    order = stored_rows(checkpoint.config, name)
    if name in adapter.replaced:
        base = reordered(adapter.replaced[name], order)
    return _merged(adapter, name, base, order, dtype)


def _merged(
    adapter: Adapter,
    name: str,
    base: HostTensor,
    order: Order,
    dtype: str,
) -> HostTensor:
    """Return the weight in `dtype`, made a few rows at a time."""
    added = adapter.factors.get(name)
    out = np.empty(num_bytes(dtype, base.shape), dtype=np.uint8)
    per_row, step = out.size // base.shape[0], max(1, _CHUNK // base.shape[-1])
    for start in range(0, base.shape[0], step):
        rows = slice(start, min(start + step, base.shape[0]))
        wide = _rows(base, rows)
        if added is not None:
            wide += _delta(added, rows, order)
        if not np.isfinite(wide).all():
            raise ModelFormatError(
                f"{adapter.path}: '{name}' with the adapter must hold finite numbers, "
                "found NaN or infinity"
            )
        part = cast(name, HostTensor.from_array(wide), dtype)
        out[rows.start * per_row : rows.stop * per_row] = part.data
    return HostTensor(out, dtype, base.shape)


def _rows(tensor: HostTensor, rows: slice) -> npt.NDArray[np.float32]:
    data = tensor.data.reshape(tensor.shape[0], -1)[rows]
    shape = (rows.stop - rows.start, *tensor.shape[1:])
    return HostTensor(np.ascontiguousarray(data).reshape(-1), tensor.dtype, shape).to_float32()


def _delta(added: LowRank, rows: slice, order: Order) -> npt.NDArray[np.float32]:
    up = added.up[rows] if order is None else added.up[order[rows]]
    with np.errstate(over="ignore", invalid="ignore"):
        delta = np.asarray(up @ added.down, dtype=np.float32)
        delta *= np.float32(added.scale)
    return delta
