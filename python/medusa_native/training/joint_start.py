"""Heads that a run of a recipe begins with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from medusa_native.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    from medusa_native import _core
    from medusa_native.loading import HeadsCheckpoint
    from medusa_native.training.recipe import HeadsSettings


def require_heads_of(heads: HeadsCheckpoint, settings: HeadsSettings, vocab_size: int) -> None:
    """Raise InvalidArgument unless heads are of the kind that a recipe trains."""
    hidden = heads.residual[0][0][0].shape[0]
    found = {
        "version": 1 if heads.projection is not None else 2,
        "num_heads": heads.num_heads,
        "num_layers": heads.num_layers,
        "grounded": heads.residual[0][0][0].shape[1] == 2 * hidden,
        "draft_vocab": vocab_size if heads.token_map is None else len(heads.token_map),
    }
    for name, value in found.items():
        expected = getattr(settings, name)
        if name == "draft_vocab" and (expected == 0 or expected > vocab_size):
            expected = vocab_size
        if value != expected:
            raise InvalidArgument(
                f"initial_heads: {heads.path}: the recipe's 'heads.{name}', {expected}, expected, "
                f"found {value}"
            )


def heads_weights(heads: HeadsCheckpoint) -> dict[str, npt.NDArray[np.float32]]:
    """Return every tensor under the trainer's name."""
    out = {}
    for head, layers in enumerate(heads.residual):
        for layer, (weight, bias) in enumerate(layers):
            rows = weight.shape[0]
            zero = np.zeros(rows, dtype=np.float32)
            out[f"{head}.{layer}.linear.weight"] = weight.to_float32()
            out[f"{head}.{layer}.linear.bias"] = zero if bias is None else bias.to_float32()
        if heads.projection is not None:
            out[f"{head}.{len(layers)}.weight"] = heads.projection[head].to_float32()
    return out


def digest_of(weights: dict[str, npt.NDArray[np.float32]]) -> str:
    """Return what tells one set of heads from another."""
    result = hashlib.sha256()
    for name in sorted(weights):
        result.update(name.encode())
        result.update(np.ascontiguousarray(weights[name]).tobytes())
    return result.hexdigest()


def begin_with(trainer: _core.JointTrainer, weights: dict[str, npt.NDArray[np.float32]]) -> None:
    """Copy heads into the trainer."""
    views = trainer.weights()
    for name, array in weights.items():
        views[name][...] = array
    trainer.refresh()
