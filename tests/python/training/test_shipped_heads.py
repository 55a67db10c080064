"""The heads in the package: small, whole, documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medusa_native import _core
from medusa_native.heads import ADAPTER, DEFAULT, FINGERPRINT, SHIPPED, locate_adapter, shipped
from medusa_native.loading import load_heads

SHAPES = {"3b87f8e27335e67f": (576, 49152)}  # fingerprint: hidden size and vocabulary


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize("fingerprint", SHAPES)
def test_every_model_has_one_default(fingerprint: str) -> None:
    configs = [config_of(folder) for folder in shipped().values()]
    own = [config for config in configs if config[FINGERPRINT] == fingerprint]
    defaults = [config for config in own if DEFAULT in config]
    assert [config[DEFAULT] for config in defaults] == [True]
    assert ADAPTER not in defaults[0]  # or the answers would not be the original model's


@pytest.mark.parametrize("folder", sorted(SHIPPED.iterdir()), ids=lambda path: path.name)
def test_shipped_heads(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 16_000_000
    config = config_of(folder)
    heads = load_heads(folder, *SHAPES[config[FINGERPRINT]])
    assert heads.grounded == folder.name.endswith(("-grounded", "-medusa-2"))
    assert config["medusa_num_heads"] == heads.num_heads
    for nodes in range(1, len(config["medusa_choices"]) + 1):
        assert _core.Tree(config["medusa_choices"][:nodes]).depth <= heads.num_heads
    card = (folder / "README.md").read_text(encoding="utf-8")
    for section in ("Data", "Commands", "Accuracies", "Limits", "licence"):
        assert section in card


def test_the_demo_models_adapter() -> None:
    folder = Path(locate_adapter("smollm2-135m-instruct-medusa-2"))
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
