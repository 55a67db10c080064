"""The heads in the package: small, whole, documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medusa_native import _core
from medusa_native.heads import FINGERPRINT, SHIPPED
from medusa_native.loading import load_heads

SHAPES = {"smollm2-135m-instruct": (576, 49152)}


@pytest.mark.parametrize("folder", sorted(SHIPPED.iterdir()), ids=lambda path: path.name)
def test_shipped_heads(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 16_000_000
    heads = load_heads(folder, *SHAPES[folder.name])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert len(config[FINGERPRINT]) == 16
    assert config["medusa_num_heads"] == heads.num_heads
    for nodes in range(1, len(config["medusa_choices"]) + 1):
        assert _core.Tree(config["medusa_choices"][:nodes]).depth <= heads.num_heads
    card = (folder / "README.md").read_text(encoding="utf-8")
    for section in ("Data", "Commands", "Accuracies", "Limits", "licence"):
        assert section in card
