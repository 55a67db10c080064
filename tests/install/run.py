"""Builds and installs the package as users do, each time into a fresh environment, and decodes with it.

Usage: python tests/install/run.py [--model MODEL] [--work FOLDER] [--only cpu|cuda]
(make test-install)

A source distribution is made, unpacked, and installed with ``pip install .`` where nvcc is and again
with nvcc hidden; a wheel is built of either and installed elsewhere. Each installation imports, says
what device="cuda" is answered with, and decodes on the CPU with Medusa's tokens equal to plain
decoding's: without an NVIDIA driver too. Where nvcc is missing, the half that needs it is left out,
and says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECK = Path(__file__).with_name("check.py")


def run(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> str:
    """Run a command and return what it wrote; where it fails, show that and end."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=dict(environment), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{done.stdout[-6000:]}\nFAILED: {' '.join(map(str, command))}")
    return done.stdout


def say(what: str, since: float, more: str = "") -> None:
    print(f"{what}: {time.monotonic() - since:.0f} s{more}", flush=True)


def megabytes(path: Path) -> str:
    return f", {path.name}, {path.stat().st_size / 1e6:.2f} MB"


def without_nvcc(environment: Mapping[str, str], links: Path) -> dict[str, str]:
    """Return an environment whose PATH holds the same programs but for nvcc."""
    folders = []
    for number, name in enumerate(environment["PATH"].split(os.pathsep)):
        folder = Path(name)
        if (folder / "nvcc").exists():
            twin = links / str(number)
            twin.mkdir(parents=True)
            for program in folder.iterdir():
                if program.name != "nvcc":
                    (twin / program.name).symlink_to(program.resolve())
            folder = twin
        folders.append(str(folder))
    hidden = {**environment, "PATH": os.pathsep.join(folders)}
    hidden.pop("CUDACXX", None)
    return hidden


def fresh_python(work: Path, name: str) -> Path:
    """Return the interpreter of a new virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
    return work / name / "bin/python"


def source_distribution(work: Path, environment: Mapping[str, str]) -> Path:
    start = time.monotonic()
    python = fresh_python(work, "builder")
    run([python, "-m", "pip", "install", "--quiet", "build"], environment, work)
    run([python, "-m", "build", "--sdist", "--outdir", work, ROOT], environment, work)
    (sdist,) = work.glob("*.tar.gz")
    say("sdist", start, megabytes(sdist))
    return sdist


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def check(python: Path, kind: str, model: str, work: Path, environment: Mapping[str, str]) -> None:
    start = time.monotonic()
    print(run([python, CHECK, kind, model], environment, work), end="")
    say(f"{kind}: checked", start)


def install(kind: str, sdist: Path, work: Path, environment: Mapping[str, str], model: str) -> None:
    """``pip install .``, then a wheel of the same sources installed elsewhere; both are checked."""
    source = unpacked(sdist, work / f"{kind}-source")
    start = time.monotonic()
    python = fresh_python(work, f"{kind}-here")
    run([python, "-m", "pip", "install", "."], environment, source)
    say(f"{kind}: pip install .", start)
    check(python, kind, model, work, environment)
    start = time.monotonic()
    wheels = work / f"{kind}-wheel"
    run([python, "-m", "pip", "wheel", "--no-deps", "-w", wheels, "."], environment, source)
    (wheel,) = wheels.glob("*.whl")
    elsewhere = fresh_python(work, f"{kind}-elsewhere")
    run([elsewhere, "-m", "pip", "install", wheel], environment, work)
    say(f"{kind}: wheel, built and installed", start, megabytes(wheel))
    check(elsewhere, kind, model, work, environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="GGUF file, folder or hub id")
    parser.add_argument("--work", type=Path, help="an empty folder that stays")
    parser.add_argument("--only", choices=("cpu", "cuda"), help="one of the two builds")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="medusa-install-"))
    work.mkdir(parents=True, exist_ok=True)
    keep = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    try:
        sdist = source_distribution(work, keep)
        if options.only != "cuda":
            install("cpu", sdist, work, without_nvcc(keep, work / "links"), options.model)
        if options.only == "cpu":
            return
        if shutil.which("nvcc"):
            install("cuda", sdist, work, keep, options.model)
        else:
            print("cuda: left out, for there is no nvcc on PATH")
    finally:
        if options.work is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
