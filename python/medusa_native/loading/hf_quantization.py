"""FP8 weights of Hugging Face folders: codes of E4M3 and what they are multiplied by.

Formats: `quantization_config` of compressed-tensors ("float-quantized"), of Transformers'
FbgemmFp8Config and FineGrainedFp8Config (DeepSeek-V3, Qwen3), and of vLLM's "fp8". In all of them an
element is its code times the scale of its tensor, its row or its block, whatever a scale is called.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import ModelFormatError
from medusa_native.loading.tensors import FLOAT8, HostTensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from medusa_native.loading.fields import Fields

_METHODS = ("compressed-tensors", "fbgemm_fp8", "fp8")
_FORMATS = ("float-quantized", "naive-quantized")
_STRATEGIES = ("tensor", "channel", "block")
_SCALE_COLUMNS = 128  # of a block: the unit of packed scales

# Of activations and of the key/value cache, which are not rounded to FP8 here.
_UNUSED = re.compile(r"\.(input_scale(_ub)?|activation_scale|output_scale|kv_scale|[qkv]_scale)$")
_SCALE = re.compile(r"\.weight_scale(_inv)?$")

Block = tuple[int, int]


def scale_block(fields: Fields) -> Block | None:
    """Return rows and columns that share a scale, where config.json says so.

    Returns
    -------
    tuple or None
        None: the shape of a scale tells whether it belongs to a tensor or to its rows.

    Raises
    ------
    ModelFormatError
        The weights are quantised in a way that is not supported.
    """
    if "quantization_config" not in fields:
        return None
    config = fields.get_fields("quantization_config")
    method = config.values.get("quant_method")
    if method not in _METHODS:
        raise ModelFormatError(
            f"{fields.path}: weights quantised by '{method}' are not supported: use FP8 weights "
            f"({', '.join(_METHODS)}), the original weights or a GGUF file"
        )
    if method == "compressed-tensors":
        return _compressed_block(config)
    if config.get_str("fmt", "e4m3") not in ("e4m3", "float8_e4m3fn"):
        raise config.fail("fmt", "'e4m3'")
    return _block(config, "weight_block_size")


def _block(config: Fields, key: str) -> Block | None:
    if key not in config:
        return None
    sizes = config.get_list(key)
    good = len(sizes) == 2 and all(type(size) is int and 0 < size < 2**31 for size in sizes)
    if not good or sizes[1] % _SCALE_COLUMNS:
        raise config.fail(key, f"two whole numbers, the second a multiple of {_SCALE_COLUMNS}")
    return sizes[0], sizes[1]


def _compressed_block(config: Fields) -> Block | None:
    if config.get_str("format", "") not in _FORMATS:
        raise config.fail("format", f"one of {', '.join(_FORMATS)}")
    if config.get_fields("sparsity_config").get_str("format", "dense") != "dense":
        raise config.fail("sparsity_config", "dense")
    if config.get_fields("transform_config").values.get("config_groups"):
        raise config.fail("transform_config", "empty")
    groups = config.get_fields("config_groups")
    blocks = {_group_block(groups.get_fields(name)) for name in groups.values}
    if len(blocks) != 1:
        raise config.fail("config_groups", "one group, or groups whose scales have equal blocks")
    return blocks.pop()


def _group_block(group: Fields) -> Block | None:
    weights = group.get_fields("weights")
    if weights.get_str("type", "") != "float" or weights.get_int("num_bits", 8) != 8:
        raise group.fail("weights", "of type 'float' with 'num_bits' 8")
    if not weights.get_bool("symmetric", True):
        raise weights.fail("symmetric", "true")
    strategy = weights.get_str("strategy", "tensor")
    if strategy not in _STRATEGIES:
        raise weights.fail("strategy", f"one of {', '.join(_STRATEGIES)}")
    if strategy != "block":
        return None
    block = _block(weights, "block_structure")
    if block is None:
        raise weights.fail("block_structure", "rows and columns of a block")
    return block


def join_scales(
    path: Path, tensors: dict[str, HostTensor], block: Block | None
) -> dict[str, HostTensor]:
    """Return a folder's tensors, FP8 weights with their scales, without tensors of scales.

    Parameters
    ----------
    path
        Named in errors.
    tensors
        By name, as stored: `weight_scale` or `weight_scale_inv` beside FP8 weights.
    block
        As `scale_block` says.

    Raises
    ------
    ModelFormatError
        FP8 weights are no matrix or have no scale or two; a scale is not positive, has a wrong
        shape or type, or belongs to no FP8 weights.
    """
    joined = {name: t for name, t in tensors.items() if not _UNUSED.search(name)}
    for scale in [name for name in joined if _SCALE.search(name)]:
        name = _SCALE.sub(".weight", scale)
        weight = joined.get(name)
        if weight is None or weight.dtype != FLOAT8 or weight.scales is not None:
            twice = weight is not None and weight.scales is not None
            found = "two scales" if twice else "none" if weight is None else weight.dtype
            raise ModelFormatError(
                f"{path}: tensor '{scale}': {FLOAT8} weights '{name}' with one scale expected, "
                f"found {found}"
            )
        joined[name] = _with_scale(path, (name, weight), (scale, joined.pop(scale)), block)
    for name, tensor in joined.items():
        if tensor.dtype == FLOAT8 and tensor.scales is None:
            raise ModelFormatError(
                f"{path}: tensor '{name}' of {FLOAT8}: a weight_scale or weight_scale_inv beside "
                "it expected, found none"
            )
    return joined


def _with_scale(
    path: Path, weight: tuple[str, HostTensor], scale: tuple[str, HostTensor], block: Block | None
) -> HostTensor:
    name, tensor = weight
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise ModelFormatError(
            f"{path}: tensor '{name}' of {FLOAT8} must be a matrix, found shape {tensor.shape}"
        )
    rows, columns = tensor.shape
    if block is None:
        block = (rows, columns) if scale[1].shape in ((), (1,), (1, 1)) else (1, columns)
    height, width = block
    grid = (-(-rows // height), -(-columns // width))
    shapes = {grid} | ({(), (1,)} if grid == (1, 1) else {(rows,)} if block[0] == 1 else set())
    values = _values(path, *scale, shapes)
    return replace(tensor, scales=values.reshape(grid), scale_block=block)


def _values(
    path: Path, name: str, tensor: HostTensor, shapes: set[tuple[int, ...]]
) -> npt.NDArray[np.float32]:
    if tensor.dtype not in ("F32", "F16", "BF16") or tensor.shape not in shapes:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must be F32, F16 or BF16 of shape "
            f"{' or '.join(map(str, sorted(shapes)))}, found {tensor.dtype} {tensor.shape}"
        )
    values = tensor.to_float32()
    bad = values[~(np.isfinite(values) & (values > 0))]
    if bad.size:
        raise ModelFormatError(
            f"{path}: tensor '{name}' must hold positive finite scales, found {bad.flat[0]}"
        )
    return values
