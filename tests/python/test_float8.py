"""Folders with FP8 weights: read as they are meant, kept at a byte a weight, as lossless as any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from float8_folders import LAYOUTS, change_quantization, change_tensors, compressed, folders
from test_quantized import GREEDY, PROMPTS, assert_heads_change_nothing, save_heads, tokens
from tiny_adapter import save_adapter
from tiny_model import CONFIG
from typer.testing import CliRunner

from medusa_native import Decoder
from medusa_native.cli import app
from medusa_native.engine import load_model
from medusa_native.errors import ModelFormatError
from medusa_native.loading import load_checkpoint, merge_adapter

IDS = list(range(3, 60))
UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of FP8 weights and one of what they mean, in float32."""
    return folders(tmp_path, LAYOUTS[request.param])


def test_values_are_those_of_torch(pair: tuple[Path, Path]) -> None:
    stored, wide = (load_checkpoint(folder).tensors for folder in pair)
    assert stored.keys() == wide.keys()
    assert sum(tensor.dtype == "F8_E4M3" for tensor in stored.values()) == 14
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor.to_float32(), wide[name].to_float32(), name)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_logits_are_those_of_the_widened_model(pair: tuple[Path, Path], dtype: str) -> None:
    stored, wide = (load_model(load_checkpoint(folder), dtype, 2) for folder in pair)
    logits = wide.logits(IDS)
    assert (stored.logits(IDS) == logits).all()
    assert (stored.logits(IDS, [1, 7, 49]) == logits).all()


def test_heads_do_not_change_the_answer(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = pair[0]
    for draft_vocab in (None, 70):
        heads = save_heads(tmp_path / f"heads{draft_vocab}", draft_vocab=draft_vocab)
        assert_heads_change_nothing(path, heads)


def test_weights_stay_codes(pair: tuple[Path, Path]) -> None:
    kept, widened = Decoder(pair[0]).info(), Decoder(pair[0], dtype="bfloat16").info()
    linear = kept["weight_formats"]["F8_E4M3"]
    assert set(kept["weight_formats"]) == {"F8_E4M3", "BF16"}
    assert set(widened["weight_formats"]) == {"BF16"}
    saved = widened["memory"]["weights"] - kept["memory"]["weights"]
    assert 0.95 * linear < saved < linear


def test_inspect_names_the_format(pair: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["inspect", "-m", str(pair[0]), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["model"]["weight_formats"]["F8_E4M3"] == 14


def test_an_adapter_meets_the_widened_weights(pair: tuple[Path, Path], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", pair[1], ("q_proj", "down_proj"))
    answers = [tokens(Decoder(folder, adapter=adapter), PROMPTS, **GREEDY) for folder in pair]
    assert answers[0] == answers[1]
    assert answers[0] != tokens(Decoder(pair[0]), PROMPTS, **GREEDY)
    for kind in ("hf", "gguf"):
        merged = [
            merge_adapter(folder, adapter, tmp_path / f"{folder.name}-{kind}", format=kind)
            for folder in pair
        ]
        assert tokens(Decoder(merged[0]), PROMPTS, **GREEDY) == tokens(
            Decoder(merged[1]), PROMPTS, **GREEDY
        )
    assert "quantization_config" not in json.loads((tmp_path / "fp8-hf/config.json").read_text())


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_model(load_checkpoint(folder), "auto", 1)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "changes", "parts"),
    [
        ("tensor", {"quant_method": "gptq"}, ("'gptq'", "not supported", "fbgemm_fp8")),
        ("tensor", {"format": "pack-quantized"}, ("'format'", "float-quantized", "pack-quan")),
        ("tensor", {"sparsity_config": {"format": "2:4"}}, ("'sparsity_config'", "dense")),
        ("tensor", {"transform_config": {"config_groups": {"u": {}}}}, ("'transform_config'",)),
        ("tensor", {"config_groups": {}}, ("'config_groups'", "one group")),
        ("tensor", compressed("group"), ("'strategy'", "tensor, channel, block", "'group'")),
        ("tensor", compressed("tensor", num_bits=4), ("'weights'", "'num_bits' 8")),
        ("tensor", compressed("tensor", type="int"), ("'weights'", "'float'")),
        ("tensor", compressed("tensor", symmetric=False), ("'symmetric'", "true", "False")),
        ("block", compressed("block"), ("'block_structure'",)),
        ("fine-grained", {"fmt": "e5m2"}, ("'fmt'", "'e4m3'", "'e5m2'")),
        ("fine-grained", {"weight_block_size": [128, 64]}, ("multiple of 128", "[128, 64]")),
        ("fine-grained", {"weight_block_size": [True, 128]}, ("'weight_block_size'",)),
        ("fine-grained", {"weight_block_size": [0, 128]}, ("'weight_block_size'",)),
        (
            "fine-grained",
            {"weight_block_size": [64, 128]},
            ("weight_scale_inv", "(4, 3)", "found BF16 (2, 3)"),
        ),
        ("fine-grained", {"weight_block_size": None}, ("weight_scale_inv", "(256,)", "(2, 3)")),
    ],
)
def test_wrong_configurations(
    tmp_path: Path, layout: str, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    folder, _ = folders(tmp_path, LAYOUTS[layout])
    change_quantization(folder, **changes)
    refused(folder, str(folder), *parts)


def scale(*shape: int, value: float = 1e-3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype)


@pytest.mark.parametrize(
    ("layout", "changes", "parts"),
    [
        ("tensor", {UP + "_scale": None}, (UP, "weight_scale", "found none")),
        ("tensor", {UP: None}, (UP + "_scale", "weights", "found none")),
        ("tensor", {UP: torch.zeros(352, 256)}, (UP + "_scale", "F8_E4M3 weights", "found F32")),
        ("tensor", {UP + "_scale_inv": scale()}, ("weight_scale", "one scale", "two scales")),
        ("tensor", {UP + "_scale": scale(2)}, (UP + "_scale", "(352,)", "found F32 (2,)")),
        ("tensor", {UP + "_scale": scale(256, 1)}, ("(352, 1)", "found F32 (256, 1)")),
        ("tensor", {UP + "_scale": scale(dtype=torch.int32)}, (UP + "_scale", "found I32")),
        *(
            ("channel", {UP + "_scale": scale(352, 1, value=bad)}, (UP + "_scale", "positive"))
            for bad in (0.0, -1.0, float("nan"), float("inf"))
        ),
        ("fine-grained", {DOWN + "_scale_inv": scale(2, 2)}, (DOWN, "(2, 3)", "found F32 (2, 2)")),
        ("fine-grained", {DOWN + "_scale_inv": scale(3, 2)}, (DOWN, "(2, 3)", "found F32 (3, 2)")),
        ("tensor", {"model.norm.weight": scale(256).to(torch.float8_e4m3fn)}, ("model.norm",)),
    ],
)
def test_wrong_tensors(
    tmp_path: Path, layout: str, changes: dict[str, torch.Tensor | None], parts: tuple[str, ...]
) -> None:
    folder, _ = folders(tmp_path, LAYOUTS[layout])
    change_tensors(folder, changes)
    refused(folder, str(folder), *parts)


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_codes_that_are_no_numbers(tmp_path: Path, code: int) -> None:
    folder, _ = folders(tmp_path, LAYOUTS["channel"])
    codes = torch.zeros(352, 256, dtype=torch.uint8)
    codes[17, 3] = code
    change_tensors(folder, {UP: codes.view(torch.float8_e4m3fn)})
    refused(folder, "gate_proj", "finite", "NaN")


def test_codes_need_a_configuration(tmp_path: Path) -> None:
    folder, _ = folders(tmp_path, LAYOUTS["fbgemm"])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 256}))
    refused(folder, "q_proj.weight", "F8_E4M3")
