"""Writes a backbone as a Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medusa_native.loading.casting import cast, is_exact
from medusa_native.loading.fields import read_json
from medusa_native.loading.hf_config import hf_config, write_tokenizer
from medusa_native.loading.rotary_rows import reordered, stored_rows
from medusa_native.loading.tensors import Checkpoint, HostTensor, num_bytes
from medusa_native.loading.writing import write_tensors

if TYPE_CHECKING:
    from pathlib import Path

Weight = Callable[[str, str], HostTensor]

_SHARD_BYTES = 5_000_000_000  # as Transformers writes them
_COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "generation_config.json", "LICENSE",
)  # fmt: skip


def write_hf(folder: Path, checkpoint: Checkpoint, weight: Weight, dtype: str) -> None:
    """Write config.json, the tokenizer's files and safetensors, a shard at a time.

    Parameters
    ----------
    folder
        Exists, and is empty.
    checkpoint
        Names, shapes and configuration.
    weight
        Name and type (F32, F16, BF16) to the tensor, rows in the order of the checkpoint.
    dtype
        Type of all matrices: float32, float16 or bfloat16. Vectors that it would round stay
        float32, as the model computes with them.

    Raises
    ------
    ModelFormatError
        config.json cannot describe the model.
    """
    stored = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    _write_texts(folder, checkpoint, dtype)
    shards = _shards(checkpoint, stored)
    files: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards, 1):
        file = _file_name(number, len(shards))
        files |= dict.fromkeys(names, file)
        tensors = {name: _tensor(checkpoint, name, weight, stored) for name in names}
        with (folder / file).open("wb") as out:
            write_tensors(out, tensors)
        total += sum(tensor.data.size for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _tensor(checkpoint: Checkpoint, name: str, weight: Weight, stored: str) -> HostTensor:
    if len(checkpoint.tensors[name].shape) == 1:
        vector = weight(name, "F32")
        tensor = cast(name, vector, stored) if is_exact(vector, stored) else vector
    else:
        tensor = weight(name, stored)
    return _in_halves(checkpoint, name, tensor)


def _in_halves(checkpoint: Checkpoint, name: str, tensor: HostTensor) -> HostTensor:
    """Undo what GGUF files do to queries and keys."""
    order = stored_rows(checkpoint.config, name)
    return reordered(tensor, None if order is None else order.argsort())


def _shards(checkpoint: Checkpoint, stored: str) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in checkpoint.tensors.items():
        bytes_ = num_bytes(stored, tensor.shape)
        if shards[-1] and size + bytes_ > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += bytes_
    return shards


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write_texts(folder: Path, checkpoint: Checkpoint, dtype: str) -> None:
    if checkpoint.path.is_dir():
        config = _changed(dict(read_json(checkpoint.path / "config.json").values), checkpoint)
        for name in _COPIED:
            if (checkpoint.path / name).is_file():
                shutil.copyfile(checkpoint.path / name, folder / name)
    else:
        config = hf_config(checkpoint)
        write_tokenizer(folder, checkpoint)
    key = "dtype" if "dtype" in config else "torch_dtype"
    text = json.dumps(config | {key: dtype}, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _changed(config: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    config.pop("quantization_config", None)  # nothing written is quantised
    return config | {"tie_word_embeddings": checkpoint.config["tie_word_embeddings"]}
