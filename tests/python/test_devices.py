"""GPUs and streams, as far as a machine without a GPU can tell."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from medusa_native import Decoder, _core, gpu_check
from medusa_native.devices import best_device, cuda_devices, stream_handle
from medusa_native.errors import DeviceError, InvalidArgument


class Protocol:
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 4096


class Later(Protocol):
    def __cuda_stream__(self) -> tuple[int, int]:
        return 1, 4096


class Torch:
    cuda_stream = 8192


class Cupy:
    ptr = 12288


@pytest.mark.parametrize(
    ("stream", "address"), [(Protocol(), 4096), (Torch(), 8192), (Cupy(), 12288), (16384, 16384)]
)
def test_streams_of_every_kind(stream: Any, address: int) -> None:
    assert stream_handle(stream) == address


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (Later(), "version 0 of __cuda_stream__, found 1"),
        (0, "found a default one"),
        (1, "found a default one"),
        ("stream", "found 'stream'"),
        (None, "found None"),
        (-5, "expected an address, found -5"),
    ],
)
def test_what_is_no_stream(stream: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        stream_handle(stream)


def test_a_stream_needs_a_gpu(model: Path) -> None:
    with pytest.raises(InvalidArgument, match="stream: expected device cuda, found cpu"):
        Decoder(model, device="cpu", stream=4096)


@pytest.mark.skipif(not _core.why_no_cuda(), reason="a GPU works here")
def test_without_a_gpu_the_reason_is_given() -> None:
    installed = importlib.util.find_spec("cuda") is not None
    says = "nvidia-smi" if installed else r'pip install "medusa-native\[cuda\]"'
    for ask in (cuda_devices, best_device):
        with pytest.raises(DeviceError, match=says):
            ask()


@pytest.mark.skipif(not _core.why_no_cuda(), reason="a GPU works here")
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
def test_auto_is_the_cpu_without_a_gpu(model: Path, kv_cache_dtype: str) -> None:
    decoder = Decoder(model, device="auto", kv_cache_dtype=kv_cache_dtype)
    assert decoder.info()["device"].startswith("cpu (")


# The model that is decoded to see whether a GPU works: it tells right from wrong where it can run.
def test_the_check_of_a_gpu_passes_where_results_are_right() -> None:
    reference, model = gpu_check.load("float32", "cpu"), gpu_check.load("bfloat16", "cpu")
    assert 1e-3 < gpu_check.distance(model, reference) < gpu_check.FURTHEST["bfloat16"] / 2
    assert gpu_check.distance(reference, reference) == 0
    plain = gpu_check.answers(model, heads=False)
    assert gpu_check.answers(model, heads=True) == plain
    assert len({token for answer in plain for token in answer}) > 16
