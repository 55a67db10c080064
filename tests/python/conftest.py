from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import save_heads, save_model

from medusa_native import Decoder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama."""
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads for it that know nothing."""
    return save_heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="session")
def grounded_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three more, which see the root."""
    return save_heads(tmp_path_factory.mktemp("heads"), grounded=True)


@pytest.fixture(scope="session")
def plain(model: Path) -> Decoder:
    return Decoder(model)


@pytest.fixture(scope="session")
def medusa(model: Path, heads: Path) -> Decoder:
    return Decoder(model, heads)


@pytest.fixture(scope="session")
def grounded(model: Path, grounded_heads: Path) -> Decoder:
    return Decoder(model, grounded_heads)
