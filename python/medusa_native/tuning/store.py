"""Where tunings are kept: beside the heads' configuration, or in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medusa_native.demo_model import cache_folder
from medusa_native.errors import InvalidArgument, ModelFormatError
from medusa_native.json_text import parse_json
from medusa_native.loading.writing import replace_file
from medusa_native.tuning.record import DeviceKey, Tuning, parse

if TYPE_CHECKING:
    from medusa_native import _core
    from medusa_native.loading import HeadsCheckpoint, HostTensor

FILE = "tuning.json"
_SAMPLE = 1 << 16  # bytes of each tensor that tell heads from others


def device_key(model: _core.Model) -> DeviceKey:
    """Return what tunings for this model on this device are found by."""
    formats = model.weight_formats
    most = max(formats, key=lambda name: (formats[name], name))
    return DeviceKey(model.device_name, processor_name(), model.compute_type, most)


def processor_name() -> str:
    """Return what the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def heads_fingerprint(heads: HeadsCheckpoint) -> str:
    """Return what tells these heads from others: SHA-256 (16 hex digits) over their tensors.

    Of a large tensor its shape and first bytes count, so that naming heads takes no time.
    """
    result = hashlib.sha256()
    for tensor in _tensors(heads):
        result.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.data[:_SAMPLE].tobytes())
    if heads.token_map is not None:
        result.update(heads.token_map.tobytes())
    return result.hexdigest()[:16]


def _tensors(heads: HeadsCheckpoint) -> Iterable[HostTensor]:
    for head in heads.residual:
        for weight, bias in head:
            yield weight
            if bias is not None:
                yield bias
    yield from heads.projection or ()


def cached_path(fingerprint: str) -> Path:
    """Return where the tuning of these heads lies in the user's cache."""
    return cache_folder() / "tuning" / f"{fingerprint}.json"


def find_tuning(heads: HeadsCheckpoint) -> Tuning | None:
    """Return the tuning of these heads, the user's own before the one beside the heads.

    A damaged or foreign file is warned about and passed over: a tree decides on speed alone.
    """
    fingerprint = heads_fingerprint(heads)
    beside = _folder(heads) / FILE
    for path in (cached_path(fingerprint), beside):
        if not path.is_file():
            continue
        try:
            tuning = read_tuning(path, heads.num_heads)
        except ModelFormatError as error:
            warnings.warn(f"{error}; medusa-native tune makes a new one", stacklevel=4)
            continue
        if tuning.heads == fingerprint:
            return tuning
        warnings.warn(
            f"{path}: belongs to other heads (expected {fingerprint}, found {tuning.heads}) and is "
            "not used; medusa-native tune makes a new one",
            stacklevel=4,
        )
    return None


def read_tuning(path: Path, num_heads: int) -> Tuning:
    """Read one file; ModelFormatError names it and what is wrong."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{path}: cannot be read: {error}") from error
    return parse(str(path), value, num_heads)


def store_tuning(tuning: Tuning, heads: HeadsCheckpoint, *, shipped: bool) -> Path:
    """Write a tuning beside the heads, or in the user's cache.

    The cache takes those of heads that ship and of heads whose folder cannot be written. Tunings of other devices that are stored there for the same heads stay.

    Raises
    ------
    InvalidArgument
        Neither place can be written.
    """
    cached = cached_path(tuning.heads)
    places = [cached] if shipped else [_folder(heads) / FILE, cached]
    problems = []
    for path in places:
        try:
            return write_tuning(path, tuning, heads.num_heads)
        except OSError as error:
            problems.append(str(error))
    raise InvalidArgument(f"the tuning cannot be written: {'; '.join(problems)}")


def write_tuning(path: Path, tuning: Tuning, num_heads: int) -> Path:
    """Write one file, keeping what it holds for other devices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: not writable")
    text = _lines(_merged(path, tuning, num_heads).to_dict())
    replace_file(path, lambda file: file.write(text.encode()))
    return path


def _lines(value: Mapping[str, Any]) -> str:
    """Return JSON with a line for each field, and for each device."""
    fields = [
        f'"{name}": {json.dumps(field)}' for name, field in value.items() if name != "devices"
    ]
    devices = ",\n  ".join(json.dumps(device) for device in value["devices"])
    return "{\n " + ",\n ".join([*fields, f'"devices": [\n  {devices}\n ]']) + "\n}\n"


def _merged(path: Path, tuning: Tuning, num_heads: int) -> Tuning:
    """Return `tuning` with the devices of an earlier file."""
    try:
        earlier = read_tuning(path, num_heads)
    except ModelFormatError:
        return tuning
    if earlier.heads != tuning.heads:
        return tuning
    fits = [d for d in earlier.devices if d.nodes <= len(tuning.table.paths) + 1]
    for device in tuning.devices:
        earlier = Tuning(tuning.heads, tuning.table, tuple(fits)).with_device(device)
        fits = list(earlier.devices)
    return earlier


def _folder(heads: HeadsCheckpoint) -> Path:
    return heads.path if heads.path.is_dir() else heads.path.parent
