"""GPUs as NVIDIA's cuda-python describes them, and streams of other libraries.

Needs the extra ``medusa-native[cuda]``; decoding itself does not.
"""

from __future__ import annotations

import importlib
import operator
from dataclasses import dataclass
from typing import Any

from medusa_native.errors import DeviceError, InvalidArgument

_LEAST = (8, 0)  # compute capability: bf16 tensor cores and asynchronous copies
_DEFAULT_STREAMS = (0, 1, 2)  # the default one, and its legacy and per-thread names


@dataclass(frozen=True)
class CudaDevice:
    """One GPU: ``Decoder(..., device=found.device)`` takes it."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory: int  # bytes
    multiprocessors: int
    l2_cache: int  # bytes

    @property
    def device(self) -> str:
        """The name that Decoder and the command line take: ``"cuda:0"``."""
        return f"cuda:{self.index}"

    @property
    def supported(self) -> bool:
        """Whether kernels were compiled for it: compute capability 8.0 or later."""
        return self.compute_capability >= _LEAST


def cuda_devices() -> list[CudaDevice]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, in CUDA's order.

    Raises
    ------
    DeviceError
        Without cuda-python, a driver, or a GPU; says which, and what to do.
    """
    runtime = cuda_runtime()
    count = checked(runtime, runtime.cudaGetDeviceCount())
    return [_describe(runtime, index) for index in range(count)]


def best_device() -> CudaDevice:
    """Return the supported GPU with the most memory, the first of several.

    Raises
    ------
    DeviceError
        As `cuda_devices`, and when no GPU has compute capability 8.0 or later.
    """
    devices = cuda_devices()
    usable = [device for device in devices if device.supported]
    if not usable:
        found = ", ".join(
            f"{d.name} ({d.compute_capability[0]}.{d.compute_capability[1]})" for d in devices
        )
        raise DeviceError(f"expected a GPU of compute capability 8.0 or later, found {found}")
    return max(usable, key=lambda device: device.memory)


def stream_handle(stream: Any) -> int:
    """Return the address of an existing CUDA stream.

    Parameters
    ----------
    stream
        An object with ``__cuda_stream__`` (cuda.core, CuPy 14, Numba), ``cuda_stream`` (torch) or
        ``ptr`` (CuPy), or the address itself. Its owner keeps it alive.

    Raises
    ------
    InvalidArgument
        For anything else, and for a default stream: work that is captured as a graph needs another.
    """
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        version, address = protocol() if callable(protocol) else protocol
        if version != 0:
            raise InvalidArgument(f"stream: expected version 0 of __cuda_stream__, found {version}")
    else:
        address = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))
    try:
        handle = operator.index(address)
    except TypeError:
        raise InvalidArgument(
            "stream: expected an object with __cuda_stream__, cuda_stream or ptr, or an address, "
            f"found {stream!r:.80}"
        ) from None
    if handle in _DEFAULT_STREAMS:
        raise InvalidArgument(
            "stream: expected a stream of its own, found a default one; make one, for instance "
            "torch.cuda.Stream()"
        )
    if not 0 < handle < 2**64:
        raise InvalidArgument(f"stream: expected an address, found {handle}")
    return handle


def cuda_runtime() -> Any:
    """Return cuda-python's ``cuda.bindings.runtime``.

    Raises
    ------
    DeviceError
        Where it is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise DeviceError(
            'cuda-python is not installed: pip install "medusa-native[cuda]"'
        ) from error


def checked(runtime: Any, answer: tuple[Any, ...]) -> Any:
    """Return the value of a call of `runtime`, None if it has none.

    Raises
    ------
    DeviceError
        Where the call failed: what CUDA says of it.
    """
    error, *values = answer
    if error != runtime.cudaError_t.cudaSuccess:
        said = runtime.cudaGetErrorString(error)[1].decode()
        raise DeviceError(f"{said} ({error.name}): look at nvidia-smi and CUDA_VISIBLE_DEVICES")
    return values[0] if values else None


def _describe(runtime: Any, index: int) -> CudaDevice:
    found = checked(runtime, runtime.cudaGetDeviceProperties(index))
    return CudaDevice(
        index=index,
        name=found.name.decode(),
        compute_capability=(found.major, found.minor),
        memory=found.totalGlobalMem,
        multiprocessors=found.multiProcessorCount,
        l2_cache=found.l2CacheSize,
    )
