"""Medusa heads for a loaded model: those a caller names, and those that ship with the package."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from medusa_native.errors import InvalidArgument
from medusa_native.loading import HeadsCheckpoint, load_heads
from medusa_native.loading.fields import read_json

if TYPE_CHECKING:
    from medusa_native.loading import Checkpoint

SHIPPED = Path(__file__).parent / "assets" / "heads"
FINGERPRINT = "base_model_fingerprint"
DEFAULT = "shipped_default"  # in config.json: "auto" takes this one of several sets for a model
ADAPTER = "medusa_adapter"  # in config.json: the folder, beside it, of the adapter of Medusa-2


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return what tells a model's weights from others, whatever the file's format.

    It is the SHA-256 (16 hex digits) of the final norm's weights in float32. Norms are what a
    quantised file keeps as they were trained, so that GGUF files of any type and the original
    agree, while every fine-tuned variant differs.
    """
    weight = checkpoint.tensors["model.norm.weight"].to_float32()
    return hashlib.sha256(weight.astype("<f4").tobytes()).hexdigest()[:16]


def shipped() -> dict[str, Path]:
    """Return the sets of heads in the package: name to folder."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob("*/config.json"))}


def find_shipped(checkpoint: Checkpoint) -> Path:
    """Return the folder of the heads that ship for this model, of several the default.

    Raises
    ------
    InvalidArgument
        When there are none.
    """
    wanted = fingerprint(checkpoint)
    configs = {folder: read_json(folder / "config.json").values for folder in shipped().values()}
    fitting = [folder for folder, config in configs.items() if config.get(FINGERPRINT) == wanted]
    if fitting:
        return max(fitting, key=lambda folder: configs[folder].get(DEFAULT) is True)
    raise InvalidArgument(
        f'heads="auto": no heads ship for {checkpoint.path} (fingerprint {wanted}; there are heads '
        f"for: {', '.join(shipped()) or 'none'}). Give a folder, or train some: medusa-native "
        "distill, then train"
    )


def _locate(heads: str | Path, checkpoint: Checkpoint) -> str | Path:
    """Resolve "auto" and the names of shipped sets; a path that exists comes before a name."""
    if heads == "auto":
        return find_shipped(checkpoint)
    return heads if Path(heads).exists() else shipped().get(str(heads), heads)


def locate_adapter(adapter: str | Path) -> str | Path:
    """Resolve the names of shipped sets that have an adapter; a path that exists comes first.

    Raises
    ------
    InvalidArgument
        A set of that name has heads alone.
    """
    folder = None if Path(adapter).exists() else shipped().get(str(adapter))
    if folder is None:
        return adapter
    inner = read_json(folder / "config.json").values.get(ADAPTER)
    if not isinstance(inner, str):
        raise InvalidArgument(f"adapter: a set with an adapter expected, found {adapter}: heads")
    return folder / inner


def open_heads(
    heads: str | Path, checkpoint: Checkpoint, *, adapted: bool = False
) -> HeadsCheckpoint:
    """Map the heads' files and hold them against the model, which may have an adapter."""
    folder = _locate(heads, checkpoint)
    config = checkpoint.config
    opened = load_heads(folder, config["hidden_size"], config["vocab_size"])
    trained_for = opened.config.get(FINGERPRINT)
    if trained_for is not None and trained_for != fingerprint(checkpoint):
        warnings.warn(
            f"{folder}: these heads were trained for other weights than {checkpoint.path}; the "
            "answers stay exact, but few guesses will be right",
            stacklevel=4,
        )
    elif ADAPTER in opened.config and not adapted:
        warnings.warn(
            f"{folder}: these heads were trained together with an adapter of the model, which "
            "`adapter` does not name; the answers stay exact, but fewer guesses will be right",
            stacklevel=4,
        )
    return opened
