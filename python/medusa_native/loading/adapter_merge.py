"""Adapters merged into a backbone's weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native import _core
from medusa_native.errors import ModelFormatError
from medusa_native.loading.casting import cast
from medusa_native.loading.rotary_rows import Order, reordered, stored_rows
from medusa_native.loading.tensors import Checkpoint, HostTensor

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native.loading.adapter import Adapter, LowRank

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


def _merged(adapter: Adapter, name: str, base: HostTensor, order: Order, dtype: str) -> HostTensor:
    """Return the weight in `dtype`: summed natively, in float32 and in a fixed order."""
    up, down, scale = _factors(adapter.factors.get(name), base.shape, order)
    if base.scales is not None:
        base = HostTensor.from_array(base.to_float32())
    source = (base.data, base.dtype, base.shape)
    data, largest = _core.add_low_rank(source, up, down, scale, dtype)
    if not np.isfinite(largest):
        raise ModelFormatError(
            f"{adapter.path}: '{name}' with the adapter must hold finite numbers, "
            "found NaN or infinity"
        )
    cast(name, HostTensor.from_array(np.array([largest], dtype=np.float32)), dtype)  # it must fit
    return HostTensor(data, dtype, base.shape)


def _factors(
    added: LowRank | None, shape: tuple[int, ...], order: Order
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Return up (rows, rank), in the file's order, down (rank, columns) and the scale."""
    if added is None:
        rows, columns = (1, *shape)[-2:]
        return np.empty((rows, 0), np.float32), np.empty((0, columns), np.float32), 1.0
    return (added.up if order is None else added.up[order]), added.down, added.scale
