"""A backbone with an adapter merged in, as files of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import InvalidArgument
from medusa_native.loading.adapter import load_adapter
from medusa_native.loading.adapter_merge import merged_weight, touched, untied
from medusa_native.loading.casting import PLAIN_DTYPES, cast
from medusa_native.loading.checkpoint import load_checkpoint
from medusa_native.loading.gguf_writer import GGUF_DTYPES, write_gguf
from medusa_native.loading.hf_writer import write_hf
from medusa_native.loading.writing import folder_beside

if TYPE_CHECKING:
    import os

    from medusa_native.loading.tensors import HostTensor

_DTYPES = {"hf": tuple(PLAIN_DTYPES), "gguf": tuple(GGUF_DTYPES)}


def merge_adapter(
    model: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str = "hf",  # noqa: A002
    dtype: str = "bfloat16",
) -> Path:
    """Write a model with a LoRA adapter merged in: ``W + scale * B A`` in float32, rounded once.

    A shard, or a tensor, is held in memory at a time. The output appears whole or not at all.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder or a hub id.
    adapter
        A folder in PEFT's format, or a hub id.
    output
        A new folder, or a new file for GGUF.
    format
        ``"hf"``: config.json, safetensors and the tokenizer's files; ``"gguf"``.
    dtype
        Of matrices: ``"bfloat16"``, ``"float16"``, ``"float32"``, and ``"q8_0"`` in a GGUF file.
        Vectors (norms, biases) are float32 in a GGUF file, and in a folder where that type would
        round them.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    InvalidArgument
        The output exists or cannot be written, a parameter is unknown, or a number does not fit
        the type.
    ModelFormatError
        A file is damaged, the adapter does not fit, or the format cannot describe the model or its
        tokenizer.
    """
    path = Path(output)
    _check(path, format, dtype)
    found = load_checkpoint(model)
    adapted = load_adapter(adapter, found.config)
    checkpoint = untied(found, adapted)
    changed = {*touched(adapted)}

    def weight(name: str, stored: str) -> HostTensor:
        if name in changed:
            return merged_weight(checkpoint, adapted, name, stored)
        return cast(name, checkpoint.tensors[name], stored)

    def write(new: Path) -> Path:
        if format == "hf":
            write_hf(new, checkpoint, weight, dtype)
            return new
        write_gguf(new / "model.gguf", checkpoint, weight, dtype)
        return new / "model.gguf"

    try:
        with folder_beside(path) as new:
            write(new).rename(path)
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be written: {error}") from error
    return path


def _check(path: Path, kind: str, dtype: str) -> None:
    if kind not in _DTYPES:
        raise InvalidArgument(f"format must be one of {', '.join(_DTYPES)}, found {kind!r}")
    if dtype not in _DTYPES[kind]:
        raise InvalidArgument(
            f"dtype of format {kind!r} must be one of {', '.join(_DTYPES[kind])}, found {dtype!r}"
        )
    if path.exists() and not (kind == "hf" and path.is_dir() and not any(path.iterdir())):
        what = "folder" if kind == "hf" else "file"
        raise InvalidArgument(f"{path}: a new {what} expected, found one that exists")
