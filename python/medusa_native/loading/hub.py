"""Names of models and heads: local paths, or repositories of the Hugging Face hub.

A repository is `org/name`, or `org/name@revision` for a branch, a tag or a commit. It is fetched
into the hub's own cache (HF_HUB_CACHE), and read from there when HF_HUB_OFFLINE is set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    import os

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_TEXT_FILES = ("*.json", "*.jinja", "tokenizer.model")
_PICKLES = ("pytorch_model*.bin",)

_REASONS = {
    "GatedRepoError": "the repository is gated: accept its terms and log in (hf auth login)",
    "RepositoryNotFoundError": "no such repository, or a private one without a token",
    "RevisionNotFoundError": "the repository has no such revision",
    "LocalEntryNotFoundError": "it is not in the cache, and the hub cannot be reached",
}


def resolve(
    name: str | os.PathLike[str],
    patterns: tuple[str, ...] = ("*.safetensors",),
    pickles: tuple[str, ...] = _PICKLES,
) -> Path:
    """Path of a local file or folder, or of a hub repository fetched into the hub's cache.

    Parameters
    ----------
    name
        A path, or a hub id, perhaps with `@revision`. What exists locally goes first.
    patterns
        Weight files to fetch; small text files always are. Where the repository has none of them,
        `pickles` are fetched instead.
    pickles
        Files of PyTorch.

    Raises
    ------
    InvalidArgument
        Nothing is there, and it is not a hub id that can be reached.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    match = _HUB_ID.fullmatch(str(name))
    if match is None:
        raise InvalidArgument(f"{path}: no such file or folder")
    folder = _fetch(match["repo"], match["revision"], (*_TEXT_FILES, *patterns))
    if patterns and not any(any(folder.glob(pattern)) for pattern in patterns):
        folder = _fetch(match["repo"], match["revision"], (*_TEXT_FILES, *pickles))
    return folder


def _fetch(repo: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:
        name = repo if revision is None else f"{repo}@{revision}"
        raise InvalidArgument(
            f"{name}: no such local path, and the Hugging Face hub did not deliver it: "
            f"{_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    detail = " ".join(str(error).split())[:300]
    return f"{_REASONS[kind]} ({detail})" if kind in _REASONS else f"{kind}: {detail}"
