"""Writes a folder of Medusa heads whole or not at all, for our readers or for vLLM."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medusa_native.errors import InvalidArgument
from medusa_native.loading.heads_convert import untrimmed
from medusa_native.loading.heads_names import name_of
from medusa_native.loading.heads_writer import (
    HEADS_FILE,
    medusa_config,
    medusa_tensors,
)
from medusa_native.loading.tensors import HostTensor
from medusa_native.loading.writing import folder_beside, replace_pair

if TYPE_CHECKING:
    from medusa_native.loading.heads import HeadsCheckpoint

LAYOUTS = {"medusa": HEADS_FILE, "vllm": "model.safetensors"}

# What a layout itself says in config.json, and what belongs to a backbone kept beside heads.
_OF_LAYOUT = {
    *("version", "medusa_num_heads", "medusa_num_layers", "num_medusa_heads", "num_medusa_layers"),
    *("model_type", "architectures", "architecture", "hidden_size", "vocab_size", "num_heads"),
    *("num_hidden_layers", "truncated_vocab_size", "medusa_fc_bias", "original_lm_head"),
    *("logit_scale", "max_paths", "topk", "torch_dtype", "dtype", "transformers_version"),
}
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_heads(
    folder: str | os.PathLike[str],
    heads: HeadsCheckpoint,
    *,
    layout: str = "medusa",
    force: bool = False,
) -> Path:
    """Write heads into a new folder, which appears with all its files or not at all.

    Parameters
    ----------
    folder
        Must not exist, or be empty.
    heads
        What to write. What their config.json says about model, tree and training goes with them.
    layout
        "medusa": `medusa_lm_head.safetensors` as FasterDecoding, TGI and TensorRT-LLM read it;
        "vllm": the files of vLLM's MedusaModel.
    force
        Replace a folder that holds nothing but heads.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidArgument
        The folder exists or cannot be written, or the layout cannot hold these heads.
    """
    if layout not in LAYOUTS:
        raise InvalidArgument(f"layout must be one of {', '.join(LAYOUTS)}, found {layout!r}")
    folder = Path(folder)
    if layout == "vllm":
        tensors, config = _vllm(heads)
    else:
        tensors, config = medusa_tensors(heads), _medusa(heads)
    require_replaceable(folder, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(folder, LAYOUTS[layout], tensors, config)
    except OSError as error:
        raise InvalidArgument(f"{folder}: cannot be written: {error}") from error
    return folder


def require_replaceable(folder: Path, *, force: bool) -> None:
    """Raise unless the folder is new or empty, or holds nothing but heads and may be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise InvalidArgument(f"{folder}: a new folder expected, found one; force replaces it")
    if not folder.is_dir():
        raise InvalidArgument(f"{folder}: a folder expected, found a file")
    known = {"config.json", "README.md", *LAYOUTS.values()}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if others:
        raise InvalidArgument(
            f"{folder}: a folder of heads alone is replaced; found '{others[0]}' in it"
        )


def _write_folder(
    folder: Path, file_name: str, tensors: dict[str, HostTensor], config: dict[str, Any]
) -> None:
    with folder_beside(folder) as new:
        replace_pair(new, file_name, tensors, "config.json", config)
        _put_in_place(new, folder)


def _put_in_place(new: Path, folder: Path) -> None:
    """Rename over nothing or an empty folder; an old one steps aside first, and back on failure."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _carried(heads: HeadsCheckpoint) -> dict[str, Any]:
    """Keys that stay true in another layout. A full model's config.json is mostly the backbone's."""
    own = {key: value for key, value in heads.config.items() if key not in _OF_LAYOUT}
    if heads.family in ("medusa", "vllm"):
        return own
    return {key: value for key, value in own.items() if key.startswith(("medusa_", "base_model_"))}


def _medusa(heads: HeadsCheckpoint) -> dict[str, Any]:
    known = heads.token_map is not None and heads.vocab_size is not None
    size = {"vocab_size": heads.vocab_size} if known else {}
    return medusa_config(heads, _carried(heads) | size)


def _require_vllm(heads: HeadsCheckpoint) -> None:
    """Raise where vLLM's layout has no place for something."""
    rows, columns = heads.residual[0][0][0].shape
    if rows != columns:
        raise InvalidArgument(
            f"{heads.path}: vLLM's layout holds heads that read the state alone, weights "
            f"({rows}, {rows}); found grounded heads, weights ({rows}, {columns})"
        )
    if heads.projection is None:
        raise InvalidArgument(
            f"{heads.path}: vLLM's layout holds projections; V2 heads have none: make them V1 with "
            "the model they are for"
        )
    if heads.vocab_size is None:
        raise InvalidArgument(
            f"{heads.path}: vLLM's layout states the model's vocabulary, which these files do not "
            "tell: give the model"
        )


def _vllm(heads: HeadsCheckpoint) -> tuple[dict[str, HostTensor], dict[str, Any]]:
    """Name the tensors as vLLM does. Source: vllm/model_executor/models/medusa.py."""
    _require_vllm(heads)
    heads = untrimmed(heads)  # vLLM ignores a map of the whole vocabulary
    assert heads.projection is not None
    shared = heads.num_heads > 1 and all(m is heads.projection[0] for m in heads.projection)
    biased = any(bias is not None for layers in heads.residual for _, bias in layers)
    tensors: dict[str, HostTensor] = {}
    for h, layers in enumerate(heads.residual):
        for k, (weight, bias) in enumerate(layers):
            tensors[name_of("vllm", "weight", h, k, 0)] = weight
            if biased:
                tensors[name_of("vllm", "bias", h, k, 0)] = bias or _zeros(weight)
    for h, matrix in enumerate(heads.projection[: 1 if shared else None]):
        name = "lm_head.weight" if shared else name_of("vllm", "projection", h, 0, 0)
        tensors[name] = matrix
    if heads.token_map is not None:  # torch indexes with int64
        tensors["token_map"] = HostTensor.from_array(heads.token_map.astype(np.int64))
    return tensors, _vllm_config(heads, shared=shared, biased=biased)


def _zeros(weight: HostTensor) -> HostTensor:
    rows = weight.shape[0]
    size = weight.data.size // (rows * weight.shape[1])
    return HostTensor(np.zeros(rows * size, dtype=np.uint8), weight.dtype, (rows,))


def _vllm_config(heads: HeadsCheckpoint, *, shared: bool, biased: bool) -> dict[str, Any]:
    carried = _carried(heads)
    # vLLM takes any key that sounds like a count of heads or layers for one.
    kept = {
        key: value
        for key, value in carried.items()
        if not ("num" in key and ("heads" in key or "layers" in key))
    }
    return {
        **kept,
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": heads.hidden_size,
        "vocab_size": heads.vocab_size,
        "truncated_vocab_size": None if heads.token_map is None else len(heads.token_map),
        "num_heads": heads.num_heads,
        "num_hidden_layers": heads.num_layers,
        "medusa_fc_bias": biased,
        "original_lm_head": shared,
        "max_paths": 64,
        "topk": 10,
        "torch_dtype": _TORCH_DTYPES[heads.residual[0][0][0].dtype],
    }
