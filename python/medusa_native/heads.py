"""Medusa heads for a loaded model: those a caller names, and those that ship with the package."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import InvalidArgument
from medusa_native.loading import HeadsCheckpoint, load_heads

if TYPE_CHECKING:
    from medusa_native.loading import Checkpoint

SHIPPED = Path(__file__).parent / "assets" / "heads"
FINGERPRINT = "base_model_fingerprint"


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return what tells a model's weights from others, whatever the file's format.

    It is the SHA-256 (16 hex digits) of the final norm's weights in float32. Norms are what a
    quantised file keeps as they were trained, so that GGUF files of any type and the original
    agree, while every fine-tuned variant differs.
    """
    weight = checkpoint.tensors["model.norm.weight"].to_float32()
    return hashlib.sha256(weight.astype("<f4").tobytes()).hexdigest()[:16]


def find_shipped(checkpoint: Checkpoint) -> Path:
    """Return the folder of the heads that ship for this model.

    Raises
    ------
    InvalidArgument
        When there are none.
    """
    wanted = fingerprint(checkpoint)
    for config in sorted(SHIPPED.glob("*/config.json")):
        if json.loads(config.read_text(encoding="utf-8")).get(FINGERPRINT) == wanted:
            return config.parent
    names = ", ".join(sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))) or "none"
    raise InvalidArgument(
        f'heads="auto": no heads ship for {checkpoint.path} (fingerprint {wanted}; there are heads '
        f"for: {names}). Give a folder, or train some: medusa-native distill, then train"
    )


def open_heads(heads: str | Path, checkpoint: Checkpoint) -> HeadsCheckpoint:
    """Map the heads' files and hold them against the model."""
    folder = find_shipped(checkpoint) if heads == "auto" else heads
    config = checkpoint.config
    opened = load_heads(folder, config["hidden_size"], config["vocab_size"])
    trained_for = opened.config.get(FINGERPRINT)
    if trained_for is not None and trained_for != fingerprint(checkpoint):
        warnings.warn(
            f"{folder}: these heads were trained for other weights than {checkpoint.path}; the "
            "answers stay exact, but few guesses will be right",
            stacklevel=4,
        )
    return opened
