"""Writes LoRA adapters in PEFT's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.errors import InvalidArgument
from medusa_native.loading.adapter import ADAPTER_FILE, PREFIX
from medusa_native.loading.adapter_config import CONFIG_FILE
from medusa_native.loading.tensors import HostTensor
from medusa_native.loading.writing import replace_pair

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from medusa_native.loading.adapter_config import AdapterConfig

    Factor = npt.NDArray[np.float32] | HostTensor


def write_adapter(
    folder: str | os.PathLike[str],
    weights: Mapping[str, tuple[Factor, Factor]],
    config: AdapterConfig,
) -> Path:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Each file is written beside its place and then renamed over it.

    Parameters
    ----------
    folder
        Made if missing.
    weights
        Module (``model.layers.0.self_attn.q_proj``, ``lm_head``) to its factors A (rank, in) and
        B (out, rank): float32 or float16 arrays, or tensors of F32, F16 or BF16.
    config
        What adapter_config.json says; must fit the factors.

    Returns
    -------
    Path
        The tensors' file.

    Raises
    ------
    InvalidArgument
        A module or a shape does not fit the configuration, or the folder cannot be written.
    """
    folder = Path(folder)
    tensors: dict[str, HostTensor] = {}
    for module, (a, b) in weights.items():
        down, up = _tensor(a), _tensor(b)
        _require_fit(module, down, up, config)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = down
        tensors[f"{PREFIX}{module}.lora_B.weight"] = up
    replace_pair(folder, ADAPTER_FILE, tensors, CONFIG_FILE, peft_config(config))
    return folder / ADAPTER_FILE


def _tensor(factor: Factor) -> HostTensor:
    return factor if isinstance(factor, HostTensor) else HostTensor.from_array(factor)


def _require_fit(module: str, down: HostTensor, up: HostTensor, config: AdapterConfig) -> None:
    rank = config.rank_of(module)
    shapes = (down.shape, up.shape)
    if [len(shape) for shape in shapes] != [2, 2] or (down.shape[0], up.shape[1]) != (rank, rank):
        raise InvalidArgument(
            f"write_adapter: A and B of {module} must have shapes ({rank}, in) and (out, {rank}), "
            f"found {down.shape} and {up.shape}"
        )
    if not config.targets_module(module):
        raise InvalidArgument(
            f"write_adapter: targets must name {module}, found {', '.join(config.targets)}"
        )


def peft_config(config: AdapterConfig) -> dict[str, Any]:
    """Return adapter_config.json. PEFT fills in what is left out."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": list(config.modules_to_save) or None,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "use_dora": False,
        "use_rslora": config.use_rslora,
    }
