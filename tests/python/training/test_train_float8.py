"""Training on a model of FP8 weights is training on what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from float8_folders import LAYOUTS, folders
from safetensors.torch import load_file
from test_joint_train import RECIPE

from medusa_native.training import train, train_recipe

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return folders(tmp_path_factory.mktemp("models"), LAYOUTS["fine-grained"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = [
        {
            "id": i,
            "prompt_token_ids": rng.integers(0, 256, 5).tolist(),
            "token_ids": rng.integers(0, 256, 40).tolist(),
            "finish_reason": "length",
        }
        for i in range(40)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def weights(output: Path) -> dict[str, bytes]:
    paths = sorted(output.rglob("*.safetensors"))
    return {
        f"{path.name}: {name}": tensor.float().numpy().tobytes()
        for path in paths
        for name, tensor in load_file(path).items()
    }


def test_heads(pair: Pair, data: Path, tmp_path: Path) -> None:
    for model in pair:
        train(model, data, tmp_path / model.name, num_heads=2, draft_vocab=160, epochs=1)
    assert weights(tmp_path / "fp8") == weights(tmp_path / "wide")


def test_heads_and_adapter(pair: Pair, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    for model in pair:
        train_recipe(model, data, tmp_path / model.name, recipe)
    found = weights(tmp_path / "fp8")
    assert any("lora_B" in name for name in found)
    assert found == weights(tmp_path / "wide")
