"""Writes a backbone as a GGUF file, with the `gguf` package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGUFWriter, quants
from gguf.constants import GGMLQuantizationType, GGUFValueType, LlamaFileType

from medusa_native.loading.gguf import gguf_name
from medusa_native.loading.gguf_file import GgufFile
from medusa_native.loading.gguf_metadata import (
    ARCHITECTURES,
    model_metadata,
    rope_factors,
    tokenizer_metadata,
)
from medusa_native.loading.rotary_rows import interleaved_rows, reordered
from medusa_native.loading.tensors import Checkpoint, block_size, num_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from medusa_native.loading.gguf_metadata import Typed
    from medusa_native.loading.hf_writer import Weight

GGUF_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}


def write_gguf(path: Path, checkpoint: Checkpoint, weight: Weight, dtype: str) -> None:
    """Write metadata and tensors, a tensor at a time.

    Parameters
    ----------
    path
        The file.
    checkpoint
        Names, shapes, configuration and tokenizer. Metadata of a GGUF file is carried over.
    weight
        Name and type (F32, F16, BF16) to the tensor, rows in the order of the checkpoint.
    dtype
        Type of matrices: float32, float16, bfloat16 or q8_0; vectors are float32. A matrix whose
        rows are no whole blocks becomes float16 instead of q8_0.

    Raises
    ------
    ModelFormatError
        GGUF has no name for the tokenizer.
    """
    stored = GGUF_DTYPES[dtype]
    arch, metadata = _metadata(checkpoint)
    metadata["general.file_type"] = (int(_FILE_TYPES[stored]), GGUFValueType.UINT32, None)
    if stored == "Q8_0":
        metadata["general.quantization_version"] = (2, GGUFValueType.UINT32, None)
    writer = GGUFWriter(path, arch)
    for key, (value, kind, item) in metadata.items():
        if value != []:  # the package cannot write empty lists; a missing one means the same
            writer.add_key_value(key, value, kind, item)
    factors = rope_factors(checkpoint.config)
    if factors is not None:
        _announce(writer, "rope_freqs.weight", factors.shape, "F32")
    for name, tensor in checkpoint.tensors.items():
        _announce(writer, gguf_name(name), tensor.shape, _type(tensor.shape, stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name, tensor in checkpoint.tensors.items():
        writer.write_tensor_data(_data(checkpoint, name, weight, _type(tensor.shape, stored)))
    writer.close()


def _metadata(checkpoint: Checkpoint) -> tuple[str, dict[str, Typed]]:
    if checkpoint.path.is_dir():
        arch = ARCHITECTURES[checkpoint.config["architecture"]]
        return arch, model_metadata(checkpoint) | tokenizer_metadata(checkpoint)
    file = GgufFile(checkpoint.path)
    values = {key: (value, *file.types[key]) for key, value in file.metadata.items()}
    values.pop("general.alignment", None)
    return str(values.pop("general.architecture")[0]), values


def _type(shape: tuple[int, ...], stored: str) -> str:
    if len(shape) == 1:
        return "F32"
    return "F16" if shape[-1] % block_size(stored)[0] else stored


def _announce(writer: GGUFWriter, name: str, shape: tuple[int, ...], dtype: str) -> None:
    row_bytes = num_bytes(dtype, shape[-1:])
    writer.add_tensor_info(
        name,
        (*shape[:-1], row_bytes),
        np.dtype(np.uint8),
        num_bytes(dtype, shape),
        GGMLQuantizationType[dtype],
    )


def _data(checkpoint: Checkpoint, name: str, weight: Weight, dtype: str) -> Any:
    tensor = weight(name, "F32" if dtype == "Q8_0" else dtype)
    config = checkpoint.config
    if ARCHITECTURES[config["architecture"]] == "llama" and not config["rope_interleaved"]:
        tensor = reordered(tensor, interleaved_rows(config, name))
    if dtype == "Q8_0":
        return quants.quantize(tensor.to_float32(), GGMLQuantizationType.Q8_0).reshape(-1)
    return tensor.data
