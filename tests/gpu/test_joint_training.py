"""On a GPU: a recipe's heads and adapter learn what they learn on the CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "python"), str(TESTS / "python/loading")]
from tiny_model import save_model

from medusa_native.training import train_recipe

HEAD = """
description = "tiny"
heads_coefficient = 0.2
heads_decay = 0.8
heads_schedule = "constant"
self_distillation = SELF_DISTILLATION
batch_tokens = 64
sequence_length = 64
[heads]
version = 2
num_heads = 2
draft_vocab = 64
learning_rate_multiplier = 4.0
"""
STAGE = """
[[stages]]
trained = ["heads", "TRAINED"]
epochs = 1
learning_rate = 1e-3
warmup_steps = 1
schedule = "linear"
"""
LORA = """
[lora]
rank = 8
alpha = 16
dropout = 0.1
targets = ["q_proj", "down_proj", "lm_head"]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    lines = [
        {"id": i, "prompt_token_ids": [i], "token_ids": rng.integers(0, 256, 24).tolist()}
        for i in range(8)
    ]
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def losses(folder: Path) -> list[float]:
    entries = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.parametrize("distilled", ["true", "false"])
def test_losses_are_those_of_the_cpu(data: Path, tmp_path: Path, distilled: str) -> None:
    recipe = tmp_path / "tiny.toml"
    head = HEAD.replace("SELF_DISTILLATION", distilled)
    recipe.write_text(head + LORA + STAGE.replace("TRAINED", "lora"))
    model = save_model(tmp_path / "model")
    options: dict[str, Any] = {"dtype": "float32", "max_tree_nodes": 8, "validation_fraction": 0.2}
    for device in ("cuda", "cpu"):
        report = train_recipe(model, data, tmp_path / device, recipe, device=device, **options)
        assert report.adapter is not None
    found = losses(tmp_path / "cuda")
    assert len(found) > 1
    assert found == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_all_weights_are_trained(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "all.toml"
    head = HEAD.replace("SELF_DISTILLATION", "true")
    recipe.write_text(head + STAGE.replace("TRAINED", "backbone"))
    model = save_model(tmp_path / "model")
    options: dict[str, Any] = {"dtype": "float32", "max_tree_nodes": 8, "validation_fraction": 0.2}
    for device in ("cuda", "cpu"):
        report = train_recipe(model, data, tmp_path / device, recipe, device=device, **options)
        assert report.model is not None
    found = losses(tmp_path / "cuda")
    assert found == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)
