"""Training on a device: what is not there is an error, before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_model

from medusa_native import DeviceError, InvalidArgument, _core
from medusa_native.training import train, train_recipe


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there(tmp_path: Path, device: str) -> None:
    if not _core.why_no_cuda():
        pytest.skip("there is a GPU")
    model, data = save_model(tmp_path / "model"), tmp_path / "answers.jsonl"
    data.write_text("")
    with pytest.raises(DeviceError, match=device):
        train(model, data, tmp_path / "heads", device=device)
    with pytest.raises(DeviceError, match=device):
        train_recipe(model, data, tmp_path / "heads", "medusa-2-small", device=device)
    assert not (tmp_path / "heads").exists()
    with pytest.raises(DeviceError, match=r"cuda|CUDA"):
        _core.Trainer(np.ones((32, 32), np.float32), device=device)


def test_a_name_that_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="'tpu'"):
        train(tmp_path, tmp_path, tmp_path / "heads", device="tpu")
    with pytest.raises(InvalidArgument, match="'tpu'"):
        train_recipe(tmp_path, tmp_path, tmp_path / "heads", "medusa-2-small", device="tpu")
    with pytest.raises(InvalidArgument, match="tpu"):
        _core.Trainer(np.ones((32, 32), np.float32), device="tpu")
