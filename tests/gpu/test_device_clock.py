"""On a GPU: answers timed by the device's events, as benchmarks time them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests/python")]
from device_clock import DeviceClock
from tiny_model import save_model

from medusa_native import Decoder, SamplingParams
from medusa_native.errors import DeviceError


def test_events_span_the_answer(tmp_path: Path) -> None:
    try:
        clock = DeviceClock()
    except DeviceError as error:  # without cuda-python, or on the emulated device
        pytest.skip(str(error))
    decoder = Decoder(save_model(tmp_path), device="cuda", stream=clock.stream)
    params = SamplingParams(max_tokens=24, ignore_eos=True)
    expected = decoder.generate(["number 1"], params)[0].outputs[0].token_ids
    start = time.perf_counter()
    outputs, milliseconds = clock.timed(lambda: decoder.generate(["number 1"], params))
    seen = 1e3 * (time.perf_counter() - start)
    assert outputs[0].outputs[0].token_ids == expected
    assert 0 < milliseconds <= seen
