"""Checkpoints of a training run: all that is needed to go on to the same bits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.json_text import parse_json
from medusa_native.loading.heads_writer import replace_file

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core

    AnyTrainer = _core.Trainer | _core.JointTrainer

_DIGEST_BYTES = 32
_GROUPS = ("weights", "mean", "square")


@dataclass
class Progress:
    """Where a run stands, besides the trainer's tensors.

    Attributes
    ----------
    step
        Updates done; with the seed it fixes the order of the data.
    seconds
        Time spent in updates.
    history
        One entry an epoch: what validation found.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(path: Path, key: str, trainer: AnyTrainer, progress: Progress) -> None:
    """Write weights, both moments and `progress`: a SHA-256, then a safetensors file.

    The file is flushed to disk and renamed over the last one, so a kill at any moment leaves a
    whole checkpoint.
    """
    tensors = {
        f"{group}.{name}": np.ascontiguousarray(array)
        for group in _GROUPS
        for name, array in getattr(trainer, group)().items()
    }
    state = json.dumps({"key": key, **vars(progress)})
    body = save(tensors, metadata={"state": state})
    digest = hashlib.sha256(body).digest()
    replace_file(path, lambda file: (file.write(digest), file.write(body)))


def load_checkpoint(path: Path, key: str, trainer: AnyTrainer) -> Progress | None:
    """Restore what `save_checkpoint` wrote; None where there is nothing.

    Raises
    ------
    InvalidArgument
        It belongs to another `key`. The trainer is as before.
    ModelFormatError
        The file is damaged. The trainer is as before.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise ModelFormatError(
            f"{path}: the checkpoint is damaged (its checksum differs); remove it to start anew"
        )
    try:
        tensors, state = load(body), _state(body)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelFormatError(f"{path}: not a checkpoint: {error}") from error
    if state.pop("key") != key:
        raise InvalidArgument(
            f"{path}: unfinished work of other settings or data; use restart to throw it away"
        )
    _restore(path, tensors, trainer)
    progress = Progress(**state)
    trainer.num_steps = progress.step
    return progress


def _state(body: bytes) -> dict[str, Any]:
    length = int.from_bytes(body[:8], "little")
    header = parse_json(body[8 : 8 + length])
    state: dict[str, Any] = parse_json(header["__metadata__"]["state"])
    return state


def _restore(path: Path, tensors: dict[str, npt.NDArray[np.float32]], trainer: AnyTrainer) -> None:
    """Copy every tensor into the trainer, once all are known to fit."""
    targets = {
        f"{group}.{name}": array
        for group in _GROUPS
        for name, array in getattr(trainer, group)().items()
    }
    if {n: a.shape for n, a in tensors.items()} != {n: a.shape for n, a in targets.items()}:
        raise ModelFormatError(f"{path}: holds other tensors than this training run")
    for name, array in targets.items():
        array[...] = tensors[name]
    trainer.refresh()
