"""Files of heads that are cut short, missing, doubled, or belong to another method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from heads_damage import fails
from heads_layouts import (
    HIDDEN,
    cast,
    medusa_names,
    trtllm_ranks,
    truth,
    v01_pt,
    write_config,
    write_layout,
)
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("layout", ["v0.1 pt", "v0.1 safetensors", "ModelOpt FP8", "PEFT wrapped"])
def test_truncated_files(tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout, truth())
    path = next(
        p for p in sorted(tmp_path.iterdir()) if p.suffix in (".pt", ".safetensors", ".bin")
    )
    content = path.read_bytes()
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        fails(tmp_path, str(path), "cannot be read")


def test_a_missing_rank(tmp_path: Path) -> None:
    trtllm_ranks(tmp_path, truth())
    (tmp_path / "rank2.safetensors").unlink()
    fails(tmp_path, str(tmp_path), "rank2.safetensors expected", "size 4", "rank3.safetensors")


@pytest.mark.parametrize(
    ("mapping", "parts"),
    [({"tp_size": 2}, ("'tp_size'", "4", "found 2")), ({"pp_size": 2}, ("'pp_size'", "found 2"))],
)
def test_ranks_the_config_does_not_know(
    tmp_path: Path, mapping: dict[str, int], parts: tuple[str, ...]
) -> None:
    trtllm_ranks(tmp_path, truth())
    write_config(tmp_path, mapping=mapping)
    fails(tmp_path, str(tmp_path / "config.json"), *parts)


def test_ranks_that_do_not_fit_together(tmp_path: Path) -> None:
    trtllm_ranks(tmp_path, truth())
    path = tmp_path / "rank1.safetensors"
    name = "medusa_heads.0.lm_head.weight"
    save_file(load_file(path) | {name: torch.zeros(26, HIDDEN + 1)}, path)
    fails(tmp_path, str(path), f"'{name}'", "(26, 64)", "(26, 65)")


def test_ranks_with_scales_of_their_own(tmp_path: Path) -> None:
    write_layout(tmp_path, "TensorRT-LLM FP8", truth())
    path = tmp_path / "rank1.safetensors"
    name = "medusa_heads.0.lm_head.weights_scaling_factor"
    save_file(load_file(path) | {name: torch.tensor(3.0)}, path)
    fails(tmp_path, str(path), f"'{name}'", "scale of rank 0")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    state = cast(medusa_names(truth(), "medusa_head."), torch.bfloat16)
    save_file(state, tmp_path / "a.safetensors")
    name = "medusa_head.0.1.weight"
    save_file({name: state[name]}, tmp_path / "b.safetensors")
    fails(tmp_path, str(tmp_path / "b.safetensors"), f"'{name}'", "one file", "a.safetensors")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"hydra_num_heads": 4}, ("Hydra", "hydra_num_heads")),
        ({"model_type": "medusa", "logit_scale": -1}, ("'logit_scale'", "positive", "-1")),
        ({"model_type": "medusa", "logit_scale": "x"}, ("'logit_scale'", "positive", "'x'")),
    ],
)
def test_settings_that_change_the_heads(
    tmp_path: Path, config: dict[str, Any], parts: tuple[str, ...]
) -> None:
    v01_pt(tmp_path, truth())
    write_config(tmp_path, **config)
    fails(tmp_path, str(tmp_path / "medusa_lm_head.pt"), *parts)


def test_another_activation(tmp_path: Path) -> None:
    write_layout(tmp_path, "TensorRT-LLM", truth())
    write_config(tmp_path, hidden_act="gelu")
    fails(tmp_path, str(tmp_path / "rank0.safetensors"), "'hidden_act'", "'silu'", "'gelu'")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    fails(tmp_path, str(tmp_path), "medusa_lm_head.safetensors", "expected", "found none")
