"""Writes Medusa heads in the layout that every reader of V1 and V2 heads knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.loading.tensors import HostTensor
from medusa_native.loading.writing import replace_pair

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from medusa_native.loading.heads import HeadsCheckpoint

HEADS_FILE = "medusa_lm_head.safetensors"
GROUNDED = "medusa_grounded"  # key of config.json; our own, other readers refuse the shapes


def save_heads(
    folder: str | os.PathLike[str], heads: HeadsCheckpoint, config: Mapping[str, Any]
) -> Path:
    """Write `medusa_lm_head.safetensors` and `config.json`.

    Each file is written beside its place and then renamed over it, so that a kill at any moment
    leaves the old file or the new one.

    Parameters
    ----------
    folder
        Made if missing.
    heads
        What to write.
    config
        Further keys of config.json, such as `base_model_name_or_path` and `medusa_choices`.

    Returns
    -------
    Path
        The tensors' file.

    Raises
    ------
    InvalidArgument
        The folder cannot be written.
    """
    replace_pair(
        Path(folder), HEADS_FILE, medusa_tensors(heads), "config.json", medusa_config(heads, config)
    )
    return Path(folder) / HEADS_FILE


def medusa_config(heads: HeadsCheckpoint, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of these heads, with further keys."""
    counts = {"medusa_num_heads": heads.num_heads, "medusa_num_layers": heads.num_layers}
    version = {"version": "2"} if heads.version == 2 else {}
    grounded = {GROUNDED: True} if heads.grounded else {}
    return {**config, **counts, **version, **grounded}


def medusa_tensors(heads: HeadsCheckpoint) -> dict[str, HostTensor]:
    """Name the tensors as FasterDecoding's readers and ours expect them."""
    tensors: dict[str, HostTensor] = {}
    for h, layers in enumerate(heads.residual):
        for k, (weight, bias) in enumerate(layers):
            tensors[f"{h}.{k}.linear.weight"] = weight
            if bias is not None:
                tensors[f"{h}.{k}.linear.bias"] = bias
    for h, weight in enumerate(heads.projection or []):
        tensors[f"{h}.{heads.num_layers}.weight"] = weight
    if heads.token_map is not None:
        tensors["token_map"] = HostTensor.from_array(heads.token_map)
    return tensors
