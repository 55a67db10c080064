"""A checked walk over a GGUF file: metadata and tensors, without copying any tensor.

The format's constants are the `gguf` package's. Its reader is not used: it trusts every count and
offset in the file, and takes seconds over a large vocabulary.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from medusa_native.errors import ModelFormatError
from medusa_native.loading.tensors import DTYPES, HostTensor, aligned, block_size, num_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

_VERSIONS = (2, 3)
_MAX_DIMS = 4
_SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.FLOAT64: "<d",
    GGUFValueType.BOOL: "<?",
}


class GgufFile:
    """Metadata and tensors of a GGUF file.

    Every count, length and offset is held against the file's size before it is used.

    Attributes
    ----------
    path
        The file.
    metadata
        Key to int, float, bool, str or list of these.
    types
        Key to the type it is stored as, and to that of a list's items, or None.
    tensors
        GGUF name to tensor, a view of the mapped file.

    Raises
    ------
    ModelFormatError
        The file is truncated, corrupt, of another version, or holds an unsupported tensor type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _map(path)
        self._buffer = self._data.data
        self._at = 0
        self.types: dict[str, tuple[GGUFValueType, GGUFValueType | None]] = {}
        num_tensors, num_fields = self._header()
        self.metadata = self._metadata(num_fields)
        infos = [self._tensor_info() for _ in range(num_tensors)]
        start = self._data_start()
        self.tensors: dict[str, HostTensor] = {}
        for name, dtype, shape, offset in infos:
            if name in self.tensors:
                raise self._fail(f"tensor '{name}' is listed twice")
            self.tensors[name] = self._tensor(name, dtype, shape, start + offset)

    def _fail(self, problem: str) -> ModelFormatError:
        return ModelFormatError(f"{self.path}: not a valid GGUF file: {problem}")

    def _header(self) -> tuple[int, int]:
        if bytes(self._buffer[:4]) != b"GGUF":
            raise self._fail(f"must begin with b'GGUF', found {bytes(self._buffer[:4])!r}")
        self._at = 4
        version = self._unpack("<I")
        if version not in _VERSIONS:
            raise self._fail(f"version must be 2 or 3 (little-endian), found {version}")
        num_tensors, num_fields = self._unpack("<Q"), self._unpack("<Q")
        self._require(num_tensors * 24, f"{num_tensors} tensors")
        self._require(num_fields * 12, f"{num_fields} metadata fields")
        return num_tensors, num_fields

    def _require(self, size: int, what: str) -> None:
        left = len(self._buffer) - self._at
        if size > left:
            raise self._fail(
                f"{what} at byte {self._at} need at least {size} bytes, found {left} (truncated?)"
            )

    def _unpack(self, code: str) -> Any:
        size = struct.calcsize(code)
        self._require(size, "a number")
        (value,) = struct.unpack_from(code, self._buffer, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._unpack("<Q")
        self._require(length, "a string")
        raw = bytes(self._buffer[self._at : self._at + length])
        self._at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._fail(f"text before byte {self._at} is not UTF-8: {raw[:40]!r}") from error

    def _metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            if key in metadata:
                raise self._fail(f"metadata key '{key}' is listed twice")
            metadata[key] = self._value(self._value_type(key), key)
        return metadata

    def _value_type(self, key: str) -> GGUFValueType:
        code = self._unpack("<I")
        try:
            return GGUFValueType(code)
        except ValueError as error:
            raise self._fail(f"metadata '{key}' has unknown value type {code}") from error

    def _value(self, kind: GGUFValueType, key: str) -> Any:
        self.types[key] = (kind, None)
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind != GGUFValueType.ARRAY:
            return self._unpack(_SCALARS[kind])
        item, length = self._value_type(key), self._unpack("<Q")
        if item == GGUFValueType.ARRAY:
            raise self._fail(f"metadata '{key}' is an array of arrays, which is not supported")
        self.types[key] = (kind, item)
        if item == GGUFValueType.STRING:
            self._require(8 * length, f"{length} strings of '{key}'")
            return [self._string() for _ in range(length)]
        return self._array(_SCALARS[item], length, key)

    def _array(self, code: str, length: int, key: str) -> list[Any]:
        size = struct.calcsize(code) * length
        self._require(size, f"{length} values of '{key}'")
        values: list[Any] = np.frombuffer(self._buffer, code, length, self._at).tolist()
        self._at += size
        return values

    def _tensor_info(self) -> tuple[str, str, tuple[int, ...], int]:
        name = self._string()
        num_dims = self._unpack("<I")
        if not 1 <= num_dims <= _MAX_DIMS:
            raise self._fail(f"tensor '{name}' must have 1 to {_MAX_DIMS} axes, found {num_dims}")
        shape = tuple(self._unpack("<Q") for _ in range(num_dims))[::-1]
        return name, self._dtype(name), shape, self._unpack("<Q")

    def _dtype(self, name: str) -> str:
        code = self._unpack("<I")
        try:
            dtype = GGMLQuantizationType(code).name
        except ValueError:
            dtype = f"type {code}"
        if dtype not in DTYPES:
            raise ModelFormatError(
                f"{self.path}: tensor '{name}' must be one of {', '.join(DTYPES)}, found {dtype}"
            )
        return dtype

    def _data_start(self) -> int:
        alignment = self.metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._fail(f"'general.alignment' must be a power of two, found {alignment!r}")
        return -(-self._at // alignment) * alignment

    def _tensor(self, name: str, dtype: str, shape: tuple[int, ...], start: int) -> HostTensor:
        elements, _ = block_size(dtype)
        if min(shape) < 1 or shape[-1] % elements:
            raise self._fail(
                f"tensor '{name}' of {dtype} must have rows of whole blocks of {elements}, "
                f"found shape {shape}"
            )
        size = num_bytes(dtype, shape)
        if start + size > len(self._buffer):
            raise self._fail(
                f"tensor '{name}' must end by byte {len(self._buffer)} (the file's end), "
                f"found {start + size} (truncated?)"
            )
        return HostTensor(aligned(self._data[start : start + size], dtype), dtype, shape)


def _map(path: Path) -> npt.NDArray[np.uint8]:
    try:
        if path.stat().st_size == 0:
            raise ModelFormatError(f"{path}: not a valid GGUF file: it is empty")
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be opened: {error}") from error


def is_gguf(path: Path) -> bool:
    """Whether the file says that it is a GGUF file, by name or by its first bytes."""
    if path.suffix == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
