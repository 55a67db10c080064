"""Writes Medusa heads in the layout that every reader of V1 and V2 heads knows."""

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

    from medusa_native.loading.heads import HeadsCheckpoint

HEADS_FILE = "medusa_lm_head.safetensors"
GROUNDED = "medusa_grounded"  # key of config.json; our own, other readers refuse the shapes


def save_heads(
    folder: str | os.PathLike[str], heads: HeadsCheckpoint, config: Mapping[str, Any]
) -> Path:
    """Write `medusa_lm_head.safetensors` and `config.json`.

    Each file is written beside its place and then renamed over it, so that a kill at any moment
    leaves the old file or the new one.

    Parameters
    ----------
    folder
        Made if missing.
    heads
        What to write.
    config
        Further keys of config.json, such as `base_model_name_or_path` and `medusa_choices`.

    Returns
    -------
    Path
        The tensors' file.

    Raises
    ------
    InvalidArgument
        The folder cannot be written.
    """
    folder = Path(folder)
    text = json.dumps(medusa_config(heads, config), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / HEADS_FILE, lambda file: write_tensors(file, medusa_tensors(heads)))
        replace_file(folder / "config.json", lambda file: file.write(text.encode()))
    except OSError as error:
        raise InvalidArgument(f"{folder}: cannot be written: {error}") from error
    return folder / HEADS_FILE


def medusa_config(heads: HeadsCheckpoint, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of these heads, with further keys."""
    counts = {"medusa_num_heads": heads.num_heads, "medusa_num_layers": heads.num_layers}
    version = {"version": "2"} if heads.version == 2 else {}
    grounded = {GROUNDED: True} if heads.grounded else {}
    return {**config, **counts, **version, **grounded}


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


def medusa_tensors(heads: HeadsCheckpoint) -> dict[str, HostTensor]:
    """Name the tensors as FasterDecoding's readers and ours expect them."""
    tensors: dict[str, HostTensor] = {}
    for h, layers in enumerate(heads.residual):
        for k, (weight, bias) in enumerate(layers):
            tensors[f"{h}.{k}.linear.weight"] = weight
            if bias is not None:
                tensors[f"{h}.{k}.linear.bias"] = bias
    for h, weight in enumerate(heads.projection or []):
        tensors[f"{h}.{heads.num_layers}.weight"] = weight
    if heads.token_map is not None:
        tensors["token_map"] = HostTensor.from_array(heads.token_map)
    return tensors


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
