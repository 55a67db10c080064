"""A recipe in the native trainer's words, and what it needs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.errors import OutOfMemory

if TYPE_CHECKING:
    from medusa_native.loading import Checkpoint
    from medusa_native.training.joint import JointSettings
    from medusa_native.training.packing import Update
    from medusa_native.training.recipe import Recipe, Stage


def core_options(
    recipe: Recipe,
    settings: JointSettings,
    updates: Sequence[Update],
    num_threads: int,
    device: str,
) -> dict[str, Any]:
    """Return the options of `_core.JointTrainer`."""
    heads, lora = recipe.heads, recipe.lora
    options: dict[str, Any] = {
        "version": heads.version,
        "num_heads": heads.num_heads,
        "num_layers": heads.num_layers,
        "heads_learning_rate_multiple": heads.learning_rate_multiplier,
        "head_decay": recipe.heads_decay,
        # The trainer counts heads' powers of the decay from 0, recipes from 1.
        "heads_coefficient": recipe.heads_coefficient * recipe.heads_decay,
        "heads_schedule": recipe.heads_schedule.removesuffix("_r"),
        "heads_schedule_ratio": recipe.heads_schedule_fraction,
        "backbone_loss": "divergence" if recipe.self_distillation else "cross_entropy",
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "stages": [_stage(stage, i, updates) for i, stage in enumerate(recipe.stages)],
        "all_weights": recipe.all_weights,
        "target_modules": [] if lora is None else list(lora.targets),
        "max_rows": max(32, recipe.sequence_length),
        "compute_type": settings.dtype,
        "num_threads": num_threads,
        "device": device,
    }
    if lora is not None:
        options |= {
            "lora_rank": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
        }
    return options


def _stage(stage: Stage, number: int, updates: Sequence[Update]) -> dict[str, Any]:
    steps = sum(update.stage == number for update in updates)
    warmup = stage.warmup_steps or int(steps * stage.warmup_ratio)
    return {
        "steps": steps,
        "heads_only": stage.trained == ("heads",),
        "learning_rate": stage.learning_rate,
        "warmup_steps": min(warmup, steps - 1),
        "schedule": stage.schedule,
    }


def require_memory(
    needed: int, backbone: Checkpoint, settings: JointSettings, all_weights: bool
) -> None:
    """Raise OutOfMemory unless the machine can hold it.

    Parameters
    ----------
    needed
        Bytes of the trainer.
    backbone
        The original model. Widened, as FP8 weights always are, it is held; where all weights are
        trained, it is read as often as those, for losses and validations compare with it. Else its
        mapped file may come and go.
    """
    size = 4 if settings.dtype == "float32" else 2
    tensors = backbone.tensors.values()
    original = 0
    if settings.weight_format == "widened":
        original = sum(math.prod(tensor.shape) for tensor in tensors) * size
    elif all_weights:
        original = sum(tensor.data.size for tensor in tensors if tensor.scales is None)
    if settings.weight_format != "widened":
        original += size * sum(math.prod(t.shape) for t in tensors if t.scales is not None)
    free = available_memory()
    if needed + original > free:
        share = f", {original >> 20} MiB of it the original model" if original else ""
        smaller = "a smaller model or an adapter" if all_weights else "a smaller rank"
        raise OutOfMemory(
            f"training needs about {(needed + original) >> 20} MiB{share}, and {free >> 20} MiB are "
            f"available: use {smaller}, a smaller sequence_length or draft_vocab, or weights as "
            "they are stored"
        )


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
