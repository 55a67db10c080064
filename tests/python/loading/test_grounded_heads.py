"""Grounded heads on disk: config.json and shapes agree, and other programs refuse them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn

from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.loading import convert_heads, load_heads, save_heads, write_heads

HIDDEN, VOCAB = 64, 100


def write(folder: Path, columns: int, layers: int = 2, **config: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for head in range(3):
        for layer in range(layers):
            shape = (HIDDEN, HIDDEN if layer else columns)
            arrays[f"{head}.{layer}.linear.weight"] = rng.standard_normal(shape, np.float32)
            arrays[f"{head}.{layer}.linear.bias"] = rng.standard_normal(HIDDEN, np.float32)
        arrays[f"{head}.{layers}.weight"] = rng.standard_normal((VOCAB, HIDDEN), np.float32)
    save_file(arrays, folder / "medusa_lm_head.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_they_are_read_and_written_again(tmp_path: Path) -> None:
    heads = load_heads(write(tmp_path, 2 * HIDDEN, medusa_grounded=True), HIDDEN, VOCAB)
    assert heads.grounded
    save_heads(tmp_path / "copy", heads, {})
    copy = load_heads(tmp_path / "copy", HIDDEN, VOCAB)
    assert copy.grounded
    assert copy.config["medusa_grounded"] is True
    for ours, theirs in zip(heads.residual, copy.residual, strict=True):
        for (weight, _), (other, _) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(weight.to_float32(), other.to_float32())


def test_plain_heads_say_nothing_of_it(tmp_path: Path) -> None:
    for stated in ({}, {"medusa_grounded": False}):
        heads = load_heads(write(tmp_path, HIDDEN, **stated), HIDDEN, VOCAB)
        assert not heads.grounded
    save_heads(tmp_path / "copy", heads, {})
    assert "medusa_grounded" not in json.loads((tmp_path / "copy/config.json").read_text())


@pytest.mark.parametrize(
    ("columns", "config", "parts"),
    [
        (128, {}, ("(64, 128)", "grounded heads", "must be true, found false")),
        (128, {"medusa_grounded": False}, ("(64, 128)", "must be true, found false")),
        (64, {"medusa_grounded": True}, ("(64, 64)", "plain heads", "must be false, found true")),
        (
            64,
            {"medusa_grounded": "yes"},
            ("'medusa_grounded' of config.json must be true or false", "'yes'"),
        ),
        (192, {"medusa_grounded": True}, ("(64, 192)",)),
        (192, {}, ("'0.0.linear.weight'", "(64, 64)", "(64, 192)")),
    ],
)
def test_config_and_shapes_that_disagree(
    tmp_path: Path, columns: int, config: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_heads(write(tmp_path, columns, **config), HIDDEN, VOCAB)
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def test_only_the_first_layer_is_wide(tmp_path: Path) -> None:
    write(tmp_path, 2 * HIDDEN, medusa_grounded=True)
    arrays = load_file(tmp_path / "medusa_lm_head.safetensors")
    arrays["1.1.linear.weight"] = torch.zeros(HIDDEN, 2 * HIDDEN)
    save_file({k: v.numpy() for k, v in arrays.items()}, tmp_path / "medusa_lm_head.safetensors")
    with pytest.raises(ModelFormatError, match=r"1\.1\.linear\.weight.*\(64, 64\).*\(64, 128\)"):
        load_heads(tmp_path, HIDDEN, VOCAB)


class ResBlock(nn.Module):
    """As in FasterDecoding/Medusa, medusa/model/medusa_model.py."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(HIDDEN, HIDDEN)


@pytest.mark.parametrize("strict", [True, False])
def test_the_reference_refuses_them(tmp_path: Path, strict: bool) -> None:
    """Not even its `strict=False` takes a tensor of another shape."""

    def load(columns: int) -> None:
        write(tmp_path, columns)
        heads = nn.ModuleList(
            nn.Sequential(ResBlock(), ResBlock(), nn.Linear(HIDDEN, VOCAB, bias=False))
            for _ in range(3)
        )
        heads.load_state_dict(load_file(tmp_path / "medusa_lm_head.safetensors"), strict=strict)

    load(HIDDEN)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(2 * HIDDEN)


def test_conversion_keeps_them_grounded(tmp_path: Path) -> None:
    heads = load_heads(write(tmp_path, 2 * HIDDEN, medusa_grounded=True), HIDDEN, VOCAB)
    converted = convert_heads(heads, token_ids=range(0, VOCAB, 3), dtype="bfloat16")
    again = load_heads(write_heads(tmp_path / "new", converted), HIDDEN, VOCAB)
    assert again.grounded
    assert again.config["medusa_grounded"] is True
    with pytest.raises(InvalidArgument, match="grounded heads"):
        write_heads(tmp_path / "vllm", heads, layout="vllm")
