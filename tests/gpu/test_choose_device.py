"""On a GPU: device="auto" takes it after a check, and not where that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "python"))
from tiny_model import save_model

from medusa_native import Decoder, gpu_check


@pytest.fixture(autouse=True)
def _check_anew() -> Iterator[None]:
    gpu_check.why_wrong.cache_clear()
    yield
    gpu_check.why_wrong.cache_clear()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_auto_is_the_gpu(tmp_path: Path, dtype: str) -> None:
    assert gpu_check.why_wrong(dtype) == ""
    assert Decoder(save_model(tmp_path), dtype=dtype).info()["device"].startswith("cuda (")


def test_the_cpu_has_the_eight_bit_cache(tmp_path: Path) -> None:
    decoder = Decoder(save_model(tmp_path), kv_cache_dtype="int8")
    assert decoder.info()["device"].startswith("cpu (")


def test_a_gpu_that_fails_the_check_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu_check.FURTHEST, "bfloat16", 1e-6)
    with pytest.warns(UserWarning, match="failed a check: bfloat16 logits are .* away"):
        decoder = Decoder(save_model(tmp_path))
    assert decoder.info()["device"].startswith("cpu (")
