"""Ways to damage the files of heads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from heads_layouts import (
    HIDDEN,
    VOCAB,
    State,
    medusa_names,
    quantised,
    trtllm_names,
    truth,
    vllm_config,
    vllm_names,
    write_config,
)
from safetensors.torch import save_file

from medusa_native.errors import ModelFormatError
from medusa_native.loading import load_heads


def fails(source: Path, *parts: str, hidden: int = HIDDEN, vocab: int = VOCAB) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelFormatError) as caught:
            load_heads(source, hidden, vocab)
    for part in parts:
        assert part in str(caught.value)


Change = Callable[[State], Any]


def without(name: str) -> Change:
    return lambda state: state.pop(name)


def put(name: str, tensor: torch.Tensor) -> Change:
    return lambda state: state.update({name: tensor})


def renamed(old: str, new: str) -> Change:
    return lambda state: state.update({new: state.pop(old)})


def spoilt(name: str, value: float) -> Change:
    def change(state: State) -> None:
        state[name] = state[name].clone()
        state[name].view(-1)[-1] = value

    return change


FILES = {
    "medusa": ("medusa_lm_head.safetensors", medusa_names),
    "vllm": ("model.safetensors", vllm_names),
    "trtllm": ("rank0.safetensors", trtllm_names),
    "modelopt": (
        "model.safetensors",
        lambda heads: quantised(
            medusa_names(heads, "medusa_heads."), "weight_scale", "input_scale"
        ),
    ),
}
# For each family: a name of a weight, a bias and a projection of head 1.
NAMES = {
    "medusa": ("1.0.linear.weight", "1.0.linear.bias", "1.1.weight"),
    "vllm": ("blocks.1.layers.0.weight", "blocks.1.layers.0.bias", "lm_heads.1.weight"),
    "trtllm": (
        "medusa_heads.1.medusa_layers.0.linear.weight",
        "medusa_heads.1.medusa_layers.0.linear.bias",
        "medusa_heads.1.lm_head.weight",
    ),
    "modelopt": (
        "medusa_heads.1.0.linear.weight",
        "medusa_heads.1.0.linear.bias",
        "medusa_heads.1.1.weight",
    ),
}


def write(folder: Path, family: str, *changes: Change) -> Path:
    file, names = FILES[family]
    state = dict(names(truth()))
    for change in changes:
        change(state)
    save_file(state, folder / file)
    if family == "vllm":
        write_config(folder, **vllm_config(truth()))
    return folder / file
