"""Everything that decides the bits of a training run."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from medusa_native import _core
from medusa_native.checks import check_flag, check_integer
from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

_FORMAT = 1  # of unfinished work; raise it when a newer version cannot go on with an older one's


@dataclass(frozen=True)
class TrainSettings:
    """Arguments of `train` that its result depends on; see there."""

    num_heads: int
    num_layers: int
    version: int
    draft_vocab: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    warmup_ratio: float
    head_decay: float
    validation_fraction: float
    max_tree_nodes: int
    max_model_len: int | None
    seed: int
    dtype: str
    grounded: bool

    def check(self) -> None:
        """Raise InvalidArgument for what the native trainer would not see, or only late."""
        check_flag("train", "grounded", self.grounded)
        check_integer("train", "num_heads", self.num_heads, 1, 32)
        check_integer("train", "num_layers", self.num_layers, 1, 32)
        check_integer("train", "version", self.version, 1, 2)
        check_integer("train", "epochs", self.epochs, 1, 10_000)
        check_integer("train", "batch_size", self.batch_size, 1, 1 << 24)
        check_integer("train", "max_tree_nodes", self.max_tree_nodes, 2, 256)
        check_integer("train", "seed", self.seed, 0, 2**64 - 1)
        if self.max_model_len is not None:
            check_integer("train", "max_model_len", self.max_model_len, 1)
        if self.draft_vocab is not None:
            check_integer("train", "draft_vocab", self.draft_vocab, 16, 1 << 30)
        _check_range("learning_rate", self.learning_rate, 0, 10)
        _check_range("weight_decay", self.weight_decay, 0, 10)
        _check_range("max_grad_norm", self.max_grad_norm, 0, 1e9)
        _check_range("warmup_ratio", self.warmup_ratio, 0, 0.9)
        _check_range("head_decay", self.head_decay, 0, 1)
        _check_range("validation_fraction", self.validation_fraction, 0, 0.5)
        if self.dtype not in ("bfloat16", "float32"):
            raise InvalidArgument(f"train: dtype: bfloat16 or float32, found {self.dtype!r}")

    def make_trainer(
        self,
        lm_head: npt.NDArray[np.float32],
        embedding: npt.NDArray[Any] | None,
        total_steps: int,
        num_threads: int,
        device: str,
    ) -> _core.Trainer:
        """Start the native trainer.

        Parameters
        ----------
        lm_head
            float32 (draft vocabulary, hidden).
        embedding
            (vocabulary, hidden), for grounded heads: float32, or uint16 holding bfloat16.
        """
        return _core.Trainer(
            lm_head,
            embedding,
            version=self.version,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            head_decay=self.head_decay,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            warmup_steps=int(total_steps * self.warmup_ratio),
            total_steps=total_steps,
            compute_type=self.dtype,
            num_threads=num_threads,
            seed=self.seed,
            device=device,
        )


def device_part(device: str) -> list[str]:
    """Return what a device adds to a digest: other devices round otherwise than the CPU."""
    return ["cuda"] if device.startswith("cuda") else []


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidArgument(f"train: {name} must be between {low} and {high}, found {value}")


def digest(*parts: Any) -> str:
    """Return a short name for settings and inputs."""
    plain = [asdict(part) if isinstance(part, TrainSettings) else part for part in parts]
    text = json.dumps([_FORMAT, *plain], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            result.update(block)
    return result.hexdigest()


def prepare_folder(folder: Path, restart: bool) -> Path:
    """Make the output folder and the one for unfinished work, before any work starts.

    Raises
    ------
    InvalidArgument
        They cannot be written.
    """
    work = folder / ".training"
    try:
        if restart and work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work):
            pass
    except OSError as error:
        raise InvalidArgument(f"{folder}: cannot be written: {error}") from error
    return work
