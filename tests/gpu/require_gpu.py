"""Exits with the reason where no GPU can be used, before anything is built for one."""

from __future__ import annotations

import ctypes
import shutil
import sys


def why_no_gpu() -> str:
    """Say what is missing, with advice; empty if nothing is."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver here (libcuda.so.1)"
    count = ctypes.c_int()
    if error := driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver answers with error {error}: look at nvidia-smi"
    if count.value == 0:
        return "the NVIDIA driver shows no GPU: look at CUDA_VISIBLE_DEVICES and nvidia-smi"
    if shutil.which("nvcc") is None:
        return "there is no nvcc: install the CUDA toolkit, or put its bin folder on PATH"
    return ""


if __name__ == "__main__":
    if reason := why_no_gpu():
        sys.exit(f"no GPU was used: {reason}")
