"""One door for every kind of backbone: GGUF file, Hugging Face folder, hub id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading.gguf import load_gguf
from medusa_native.loading.gguf_file import is_gguf
from medusa_native.loading.hf import load_folder
from medusa_native.loading.hf_tokenizer import hf_tokenizer

if TYPE_CHECKING:
    import os

    from medusa_native.loading.tensors import Checkpoint
    from medusa_native.tokenizer import Tokenizer

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TEXT_FILES = ["*.json", "*.jinja", "tokenizer.model"]


def load_checkpoint(model: str | os.PathLike[str]) -> Checkpoint:
    """Read a backbone without copying its weights.

    Parameters
    ----------
    model
        A GGUF file, a Hugging Face folder, or a hub id such as `org/name`.

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


def resolve(name: str | os.PathLike[str], patterns: tuple[str, ...] = ("*.safetensors",)) -> Path:
    """Path of a local file or folder, or of a hub repository fetched into the hub's cache.

    Parameters
    ----------
    name
        A path or a hub id.
    patterns
        Weight files to fetch; small text files always are.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(str(name)):
        raise InvalidArgument(f"{path}: no such file or folder")
    return _download(str(name), [*_TEXT_FILES, *patterns])


def _download(repo: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except Exception as error:
        detail = " ".join(str(error).split())[:300]
        raise InvalidArgument(
            f"{repo}: no such local path, and the Hugging Face hub did not deliver it: "
            f"{type(error).__name__}: {detail}"
        ) from error
