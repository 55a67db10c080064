"""Checkpoints of a training run: all that is needed to go on to the same bits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.json_text import parse_json
from medusa_native.loading.tensors import HostTensor
from medusa_native.loading.writing import replace_file, write_tensors

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core

    AnyTrainer = _core.Trainer | _core.JointTrainer
    Array = npt.NDArray[np.float32]

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
        f"{group}.{name}": HostTensor.from_array(array)
        for group in _GROUPS
        for name, array in getattr(trainer, group)().items()
    }
    state = json.dumps({"key": key, **vars(progress)})

    def write(file: BinaryIO) -> None:
        hashed = _Hashed(file)
        file.write(bytes(_DIGEST_BYTES))
        write_tensors(hashed, tensors, {"state": state})
        file.seek(0)
        file.write(hashed.digest.digest())

    replace_file(path, write)


class _Hashed:
    """A file whose content is hashed while it is written, so that it need not be in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes | memoryview, /) -> None:
        self.digest.update(data)
        self._file.write(data)


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
    data = np.memmap(path, dtype=np.uint8, mode="r").data if path.stat().st_size else b""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise ModelFormatError(
            f"{path}: the checkpoint is damaged (its checksum differs); remove it to start anew"
        )
    try:
        tensors, state = _content(body)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(f"{path}: not a checkpoint: {error}") from error
    if state.pop("key") != key:
        raise InvalidArgument(
            f"{path}: unfinished work of other settings or data; use restart to throw it away"
        )
    _restore(path, tensors, trainer)
    progress = Progress(**state)
    trainer.num_steps = progress.step
    return progress


def _content(body: bytes | memoryview) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return views of the tensors and what is said about them."""
    start = 8 + int.from_bytes(body[:8], "little")
    header = parse_json(bytes(body[8:start]))
    state: dict[str, Any] = parse_json(header.pop("__metadata__")["state"])
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        stored = body[start + begin : start + end]
        tensors[name] = np.frombuffer(stored, dtype=np.float32).reshape(info["shape"])
    return tensors, state


def _restore(path: Path, tensors: dict[str, Array], trainer: AnyTrainer) -> None:
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
