"""Clocks for work on a device: the host's, or on a GPU events of its own, through cuda-python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from medusa_native.devices import checked, cuda_runtime
from medusa_native.errors import DeviceError

T = TypeVar("T")


class HostClock:
    """Milliseconds as the host sees them."""

    name = "host"
    stream = None  # the back end makes its own

    def timed(self, body: Callable[[], T]) -> tuple[T, float]:
        start = time.perf_counter()
        found = body()
        return found, 1e3 * (time.perf_counter() - start)


class DeviceClock:
    """Milliseconds between two events on a stream of its own, to hand over to whoever is timed."""

    name = "device events"

    def __init__(self) -> None:
        self._runtime = cuda_runtime()
        flags = self._runtime.cudaStreamNonBlocking
        self.stream = int(self._call("cudaStreamCreateWithFlags", flags))
        self._start, self._end = (self._call("cudaEventCreate") for _ in range(2))

    def timed(self, body: Callable[[], T]) -> tuple[T, float]:
        """Run `body`, which queues its work on `stream`, and wait for that."""
        self._call("cudaEventRecord", self._start, self.stream)
        found = body()
        self._call("cudaEventRecord", self._end, self.stream)
        self._call("cudaEventSynchronize", self._end)
        return found, float(self._call("cudaEventElapsedTime", self._start, self._end))

    def _call(self, name: str, *arguments: Any) -> Any:
        return checked(self._runtime, getattr(self._runtime, name)(*arguments))


def clock_of(device: str) -> HostClock | DeviceClock:
    """Return the clock to time a device by: the host's, said aloud, where a GPU's cannot be had."""
    if device == "cpu":
        return HostClock()
    try:
        return DeviceClock()
    except DeviceError as error:
        print(f"timed by the host: {error}")
        return HostClock()
