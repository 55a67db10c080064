"""Files and folders that are old or new at every moment, and the safetensors format."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from medusa_native.errors import InvalidArgument
from medusa_native.loading.tensors import HostTensor, block_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name, flush it to disk, then rename it over `path`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def replace_pair(
    folder: Path,
    tensors_name: str,
    tensors: Mapping[str, HostTensor],
    config_name: str,
    config: Mapping[str, Any],
) -> None:
    """Write tensors as safetensors, then what describes them as JSON, each by `replace_file`.

    Raises
    ------
    InvalidArgument
        The folder, which is made if missing, cannot be written.
    """
    text = json.dumps(config, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / tensors_name, lambda file: write_tensors(file, tensors))
        replace_file(folder / config_name, lambda file: file.write(text.encode()))
    except OSError as error:
        raise InvalidArgument(f"{folder}: cannot be written: {error}") from error


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Make an empty folder beside `path`, to be renamed; what is left of it goes at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        new.chmod(0o755)
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


class Writable(Protocol):
    """What takes bytes: a file, or one that is hashed on the way."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append."""


def write_tensors(
    file: Writable, tensors: Mapping[str, HostTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the safetensors format: header length, JSON header padded to 8 bytes, tensors."""
    names = sorted(tensors, key=lambda name: -block_size(tensors[name].dtype)[1])
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.data.size
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(tensors[name].data.data)
