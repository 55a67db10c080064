"""One door for every kind of backbone: GGUF file, Hugging Face folder, hub id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medusa_native.errors import ModelFormatError
from medusa_native.loading.gguf import load_gguf
from medusa_native.loading.gguf_file import is_gguf
from medusa_native.loading.hf import load_folder
from medusa_native.loading.hf_tokenizer import hf_tokenizer
from medusa_native.loading.hub import resolve

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from medusa_native.loading.tensors import Checkpoint
    from medusa_native.tokenizer import Tokenizer


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Read a backbone without copying its weights.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder, or a hub id: `org/name` or `org/name@revision`.

    Raises
    ------
    InvalidArgument
        Nothing is there, and it is not a hub id that can be reached.
    ModelFormatError
        The files are damaged or of a kind that is not supported.
    """
    checkpoint = _load(resolve(model))
    vocab_size = checkpoint.config["vocab_size"]
    if checkpoint.tokenizer.vocab_size > vocab_size:
        raise ModelFormatError(
            f"{checkpoint.path}: tensor 'model.embed_tokens.weight' must have a row for each of the "
            f"tokenizer's {checkpoint.tokenizer.vocab_size} ids, found {vocab_size}"
        )
    return checkpoint


def load_tokenizer(model: str | os.PathLike[str]) -> Tokenizer:
    """Read a model's tokenizer alone; a folder needs no weights for that.

    Raises
    ------
    InvalidArgument
        Nothing is there, and it is not a hub id that can be reached.
    ModelFormatError
        The files are damaged or of a kind that is not supported.
    """
    path = resolve(model, ())
    return hf_tokenizer(path) if path.is_dir() else _load(path).tokenizer


def _load(path: Path) -> Checkpoint:
    if path.is_dir():
        return load_folder(path)
    if not is_gguf(path):
        raise ModelFormatError(
            f"{path}: a GGUF file or a Hugging Face folder expected, found another kind of file"
        )
    return load_gguf(path)
