"""LoRA adapters of random numbers for tiny models, and what they do, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medusa_native.loading import AdapterConfig, load_checkpoint, write_adapter
from medusa_native.loading.shapes import backbone_tensors

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[np.float32]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


def random_factors(
    config: dict[str, Any], targets: tuple[str, ...] = LINEAR, rank: int = 4, seed: int = 5
) -> dict[str, tuple[Array, Array]]:
    """Return factors that change the answers: module to A and B."""
    rng = np.random.default_rng(seed)
    untied = config | {"tie_word_embeddings": False}
    factors = {}
    for name, shape, _ in backbone_tensors(untied):
        module = name.removesuffix(".weight")
        if module.split(".")[-1] in targets and name.endswith(".weight"):
            a = rng.standard_normal((rank, shape[1]), np.float32) / np.float32(shape[1] ** 0.5)
            factors[module] = a, rng.standard_normal((shape[0], rank), np.float32)
    return factors


def save_adapter(
    folder: Path, model: Path, targets: tuple[str, ...] = LINEAR, *, rank: int = 4, seed: int = 5
) -> Path:
    """Write a random adapter for a model."""
    factors = random_factors(load_checkpoint(model).config, targets, rank, seed)
    write_adapter(folder, factors, AdapterConfig(rank, 2.0, targets))
    return folder


def merged_by_hand(
    tensors: dict[str, Array], factors: dict[str, tuple[Array, Array]], scale: float
) -> dict[str, Array]:
    """Return weights with ``scale * B A`` added, in float64 and rounded once."""
    merged = dict(tensors)
    for module, (a, b) in factors.items():
        delta = scale * (b.astype(np.float64) @ a)
        merged[f"{module}.weight"] = (tensors[f"{module}.weight"] + delta).astype(np.float32)
    return merged
