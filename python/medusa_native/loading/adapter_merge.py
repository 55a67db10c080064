"""Adapters merged into a backbone's weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.casting import cast
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
    tensors = dict(checkpoint.tensors)
    config = dict(checkpoint.config)
    touched = {*adapter.factors, *adapter.replaced}
    if config["tie_word_embeddings"] and touched & {_EMBEDDING, _LM_HEAD}:
        tensors[_LM_HEAD] = tensors[_EMBEDDING]
        config["tie_word_embeddings"] = False
    for name in sorted(touched):
        order = file_rows(config, name)
        base = tensors.get(name)
        if base is None:
            raise ModelFormatError(
                f"{adapter.path}: tensor '{name}' of the model expected, found none to adapt"
            )
        if name in adapter.replaced:
            base = _reordered(adapter.replaced[name], order)
        tensors[name] = _merged(adapter, name, base, order, dtype)
    return replace(checkpoint, config=config, tensors=tensors)


def file_rows(config: dict[str, Any], name: str) -> npt.NDArray[np.int64] | None:
    """Which of Hugging Face's rows each row of a stored weight is; None: they are the same.

    GGUF files of the llama architecture hold the two halves of every query and key head
    interleaved, for that is how llama.cpp rotates them.
    """
    kinds = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    module = name.split(".")[-2]
    if not config["rope_interleaved"] or module not in kinds:
        return None
    heads, dim = config[kinds[module]], config["head_dim"]
    halves = np.arange(heads * dim).reshape(heads, 2, dim // 2)
    return np.asarray(halves.swapaxes(1, 2).reshape(-1))


def _reordered(tensor: HostTensor, order: npt.NDArray[np.int64] | None) -> HostTensor:
    if order is None:
        return tensor
    rows = tensor.data.reshape(tensor.shape[0], -1)[order]
    return HostTensor(rows.reshape(-1), tensor.dtype, tensor.shape)


def _merged(
    adapter: Adapter,
    name: str,
    base: HostTensor,
    order: npt.NDArray[np.int64] | None,
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
            wide = wide + _delta(added, rows, order)
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


def _delta(
    added: LowRank, rows: slice, order: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32]:
    up = added.up[rows] if order is None else added.up[order[rows]]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.float32(added.scale) * (up @ added.down), dtype=np.float32)
